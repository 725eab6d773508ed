"""GPUs: the published table, the cards it lacks, and what the catalog needs besides."""

from __future__ import annotations

import csv
from pathlib import Path

ECC = ("A10G", "A40", "L4", "L40S")
"""Cards whose GDDR6 stores its error-correcting code in line: a sixteenth of the memory is not available."""

ADDED = (
    {
        "gpu": "RTX4090",
        "memory_gb": "24",
        "mem_bandwidth_gb_s": "1008",
        "bf16_dense_tflops": "165.2",
        "fp8_dense_tflops": "330.3",
        "tdp_w": "450",
        "source": "NVIDIA Ada GPU architecture white paper (dense, float32 accumulation)",
    },
    {
        "gpu": "A40",
        "memory_gb": "48",
        "mem_bandwidth_gb_s": "696",
        "bf16_dense_tflops": "149.7",
        "fp8_dense_tflops": "",
        "tdp_w": "300",
        "source": "NVIDIA A40 datasheet",
    },
)

FP4_TFLOPS = {"B200-SXM": 9000.0, "B300-SXM": 13500.0, "GB200": 10000.0, "RTX-PRO-6000-Server": 1871.2}
"""Dense FP4 rates of the vendor's product pages (RTX PRO 6000: four times its 16-bit rate)."""

PCIE_GEN5 = ("H100-PCIe", "RTX-PRO-6000-Server")
LINK_GB_S = {
    "A100-40GB-SXM": 600,
    "A100-80GB-SXM": 600,
    "H100-SXM": 900,
    "H200-SXM": 900,
    "B200-SXM": 1800,
    "B300-SXM": 1800,
    "GB200": 1800,
    "MI300X": 896,
}
"""NVLink or Infinity Fabric, GB/s per GPU, both directions together; the others have PCI Express."""

ALIASES = {
    "A100-40GB-SXM": ("A100-40GB", "A100-40"),
    "A100-80GB-SXM": ("a100_sxm", "a100-80gb", "A100-80", "A100-SXM", "A100"),
    "A100-80GB-PCIe": ("a100_pcie", "A100-PCIe"),
    "RTX-PRO-6000-Server": ("RTXPRO6000", "RTX-PRO-6000", "rtx_pro_6000_server"),
    "RTX4090": ("RTX-4090", "GeForce-RTX-4090"),
    "H100-SXM": ("h100_sxm", "h100-80gb", "H100-80GB-SXM", "H100"),
    "H100-PCIe": ("h100_pcie",),
    "H200-SXM": ("h200_sxm", "H200"),
    "B200-SXM": ("b200_sxm", "B200"),
    "B300-SXM": ("b300_sxm", "B300"),
}
"""The spellings of the measurements that differ in more than case, and common ones."""


def rows(data: Path) -> list[dict[str, object]]:
    """One row per GPU."""
    with (data / "published" / "gpus.csv").open(encoding="utf-8", newline="") as file:
        table = [*csv.DictReader(file), *ADDED]
    return [_row(entry) for entry in table]


def _row(entry: dict[str, str]) -> dict[str, object]:
    name = entry["gpu"]
    memory = float(entry["memory_gb"])
    source = entry["source"]
    if name in ECC:
        memory *= 15 / 16
        source += "; a 16th of the memory holds the error-correcting code"
    link = LINK_GB_S.get(name, 128 if name in PCIE_GEN5 else 64)
    source += "; link: " + ("NVLink or Infinity Fabric" if name in LINK_GB_S else "PCI Express x16")
    return {
        "name": name,
        "aliases": ";".join(a for a in ALIASES.get(name, ()) if a != name),
        "memory_gib": f"{memory:g}",
        "bandwidth_gb_s": entry["mem_bandwidth_gb_s"],
        "bf16_tflops": entry["bf16_dense_tflops"],
        "fp8_tflops": entry["fp8_dense_tflops"],
        "fp4_tflops": FP4_TFLOPS.get(name, ""),
        "link_gb_s": link,
        "power_w": entry["tdp_w"],
        "source": source,
    }
