"""`stability explain`."""

from __future__ import annotations

import textwrap

import click
from click.shell_completion import CompletionItem

from .._result import json_safe, text_table
from ..errors import UnknownNameError, unknown_name
from .output import Command, json_option, print_json, print_text
from .terms import KINDS, Entry, entries

WIDTH = 96

ROWS = {
    "because": "verdict",
    "rate": "rate_per_s",
    "capacity": "capacity_per_s",
    "stable below": "stable_below_per_s",
    "unstable above": "unstable_above_per_s",
    "proved": "proved_capacity_per_s",
    "bound, any policy": "upper_bound_per_s",
    "iteration": "iteration_s",
    "inter-token latency": "itl_s",
    "time to first token": "ttft_mean_s",
    "running per replica": "running_mean",
}
"""What the rows of `stability check` are called in the glossary."""


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    folded = incomplete.casefold()
    return [CompletionItem(item.name, help=item.kind) for item in entries() if item.name.casefold().startswith(folded)]


@click.command(
    cls=Command,
    examples=(
        ("stability explain", "everything that can be explained"),
        ("stability explain kv_memory", "a bottleneck"),
        ("stability explain undetermined", "a verdict"),
        ("stability explain 3", "an exit code"),
        ("stability explain watermark --json", "a term, for scripts"),
    ),
    exit_codes="0, or 2 for an unknown TERM.",
)
@click.argument("term", nargs=-1, shell_complete=_complete)
@json_option
def explain(term: tuple[str, ...], as_json: bool) -> int:
    """What a word of the output means: a term, a verdict or its reason, a bottleneck, an exit code, an error, a policy.

    TERM may be a name, a symbol or an exit code; without it, all are listed.
    """
    known = entries()
    if not term:
        if as_json:
            print_json({"schema": "stability/explain/1", "entries": json_safe(known)})
        else:
            print_text(_listing(known))
        return 0
    found = look_up(" ".join(term), known)
    if as_json:
        print_json(
            {"schema": "stability/explain/1", "entries": [{**_fields(item), "page": item.page} for item in found]}
        )
    else:
        print_text("\n\n".join(_shown(item) for item in found))
    return 0


def look_up(term: str, known: list[Entry]) -> list[Entry]:
    """The entries of that name or symbol, whatever its case, or of a reason given in full; nearest names in the error if there are none."""
    text = term.strip().strip("'\"`")
    if not text:
        raise UnknownNameError("the term is empty, must be a word of the output. `stability explain` lists all.")
    folded = _folded(text)
    found = [item for item in known if _folded(item.name) == folded]
    found = found or [item for item in known if item.symbol == text]
    found = found or [item for item in known if item.symbol and _folded(item.symbol) == folded]
    found = found or [item for item in known if item.name == ROWS.get(text.casefold())]
    found = found or [
        item for item in known if item.kind == "reason" and item.name in text
    ]  # a whole sentence was pasted
    if not found:
        error = unknown_name("term", term, [item.name for item in known])
        hint = str(error) if "Did you mean" in str(error) else f"unknown term {term!r}."
        raise UnknownNameError(f"{hint} `stability explain` lists all.")
    return found


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")


def _fields(item: Entry) -> dict[str, str]:
    return {"name": item.name, "kind": item.kind, "text": item.text, "symbol": item.symbol, "unit": item.unit}


def _shown(item: Entry) -> str:
    head = f"{item.name} ({item.kind})"
    rows = [
        (name, value) for name, value in (("symbol", item.symbol), ("unit", item.unit), ("more", item.page)) if value
    ]
    paragraphs = [textwrap.fill(part, WIDTH) for part in item.text.split("\n\n")]
    return "\n\n".join([head, *paragraphs, *([text_table(rows)] if rows else [])])


def _listing(known: list[Entry]) -> str:
    parts = []
    for kind in KINDS:
        names = ", ".join(item.name for item in known if item.kind == kind)
        parts.append(
            f"{kind}\n{textwrap.fill(names, WIDTH, initial_indent='  ', subsequent_indent='  ', break_on_hyphens=False)}"
        )
    return "\n".join(parts)
