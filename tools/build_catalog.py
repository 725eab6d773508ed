"""Derive the catalog's data files from the folder of published measurements.

    python -m tools.build_catalog [--data ../shared/data] [--check]

Facts only: numbers, each row with its source. The output, stability/model/catalog/data, is committed and shipped in
the wheel; with --check nothing is written, and the exit code is 1 if a file would change.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path

from tools.catalog_sources import gpus, laws, models, workloads

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "stability" / "model" / "catalog" / "data"
DATA = ROOT.parent / "shared" / "data"


def build(data: Path) -> dict[str, str]:
    """The text of every data file by its name."""
    gpu_rows = gpus.rows(data)
    model_rows = models.rows(data)
    return {
        "gpus.csv": _csv(gpu_rows),
        "models.csv": _csv(model_rows),
        "laws.csv": _csv(laws.rows(data, gpu_rows, model_rows)),
        "workloads.json": json.dumps(workloads.records(data), indent=None, separators=(",", ":")).replace(
            '},{"name"', '},\n{"name"'
        )
        + "\n",
    }


def _csv(rows: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main() -> int:
    """Write or check the data files."""
    parser = argparse.ArgumentParser(description="Derive the catalog's data files from published measurements.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of published measurements")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file would change")
    options = parser.parse_args()
    changed = 0
    for name, text in build(options.data).items():
        file = TARGET / name
        same = file.exists() and file.read_text(encoding="utf-8") == text
        changed += not same
        if not options.check:
            file.write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.splitlines())} lines, {len(text)} bytes, {'unchanged' if same else 'changed'}")
    return int(options.check and changed > 0)


if __name__ == "__main__":
    sys.exit(main())
