"""What `stability explain` knows: the glossary, verdicts and their reasons, bottlenecks, exit codes, errors and policies.

Each kind has one source: the glossary is docs/reference/glossary.md, errors and policies are explained by their own docstrings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

KINDS = ("verdict", "reason", "bottleneck", "exit code", "error", "policy", "term")

PAGES = {
    "verdict": "docs/decisions.md",
    "reason": "docs/theory/eviction.md",
    "bottleneck": "docs/theory/theory.md",
    "exit code": "docs/decisions.md",
    "policy": "docs/guides/schedulers.md",
    "term": "docs/reference/glossary.md",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that can be explained.

    Attributes
    ----------
    name : str
        What is asked for.
    kind : str
        One of `KINDS`.
    text : str
        The explanation, of one paragraph or more.
    symbol, unit : str
        Of a glossary term; empty otherwise.
    """

    name: str
    kind: str
    text: str
    symbol: str = ""
    unit: str = ""

    @property
    def page(self) -> str:
        """Where the documentation has more; empty if nowhere."""
        return PAGES.get(self.kind, "")


VERDICTS = {
    "STABLE": "The queues stay finite: the rate lies below the lower end of a capacity that is proved or validated for "
    "this policy and regime (`stable below`).",
    "UNSTABLE": "The queues grow without end: the rate lies above the upper end of this policy's capacity, or of the bound "
    "that no policy exceeds (`unstable above`).",
    "UNDETERMINED": "Theory does not say: the rate lies between `stable below` and `unstable above`, or the regime is "
    "outside those in which the formula was measured. `stability validate` simulates the plan; less load, or another "
    "admission policy (reserve), makes it certain.",
}

REASONS = {
    "is stable up to": "The pool's rate is below the lower end of a capacity that is proved or validated.",
    "it can serve": "The pool's rate is above the upper end of its capacity, or of the bound that no policy exceeds.",
    "below which stability is proved or validated": "The rate is above what is proved or validated and below what is ruled "
    "out. The margin about the capacity covers the measured error of its formula and, for lengths from a trace, its sampling "
    "error.",
    "transient overload": "A rate schedule is stable at its mean and not at its peak window. Whether the queue that the peak "
    "builds drains in time is a question for `stability ramp`.",
    "mean and peak differ": "A rate schedule has one verdict at its mean and another at its peak window; `stability ramp` follows "
    "it over time.",
    "completions synchronise": "So few distinct lengths that requests admitted together also complete together: the batch swings "
    "between full and empty in a cycle, and the formula for independent completions does not hold. The capacity of the "
    "cycle is an estimate on which no verdict rests.",
    "so few requests fit": "So few requests fit in the KV cache at once that formulas for many do not hold. Nothing is certain "
    "at any rate; simulate the plan.",
    "older requests leave before an eviction": "Prompts are short against outputs, and the eviction theory was not measured "
    "there: its capacity is an estimate.",
    "evict each other half-way": "A chunk gate admits a prompt by its first chunk. When memory is full, prompts that are longer "
    "than the token budget can evict each other before any is prefilled, and the rate collapses to what is called stable here.",
    "its capacity is an estimate": "A chunk gate admits prompts that do not fit as a whole; the eviction theory is for gates that "
    "look at the whole prompt.",
    "memory suffices with probability": "Nested WAIT is stable while its memory suffices; its publication bounds the chance that it "
    "does not over a stated time, not for ever.",
    "two equilibria": "At this rate a warm prefix cache carries the load, and so does a backlog that has taken the cache stay: which "
    "of the two a fleet is in depends on its past. Below the cold capacity every backlog drains. `stability prefix` shows both.",
    "what balanced routing reaches beyond": "Workers behind a barrier wait for the slowest. Below the first rate they are stable "
    "however requests are routed; how much more a router that balances gains is not proved.",
}
"""By the words that occur in the sentence."""

BOTTLENECKS = {
    "kv_memory": "KV cache memory binds: requests wait until others complete or are evicted. More memory, fewer bytes per "
    "token (fp8 KV), shorter outputs or more replicas help.",
    "batch_slots": "`max_num_seqs` binds: every slot is taken while memory is left. Raise it, if iterations may get longer.",
    "token_budget": "`max_num_batched_tokens` binds: prompts wait for their share of an iteration. Raise it, if iterations may "
    "get longer.",
    "compute": "The iterations' own work binds: lifting every limit would raise the capacity by less than 10 %. Only faster "
    "or more replicas help.",
    "scheduler": "The scheduling policy holds back what the resources allow (its capacity is below 98 % of the bound).",
}

EXIT_CODES = {
    "0": "The answer is yes: stable and every stated target met; for other commands, done.",
    "1": "The answer is no: unstable, a target missed, no feasible fleet, theory and simulation disagree.",
    "2": "Bad input: a plan, a trace or an option is wrong. The message says where, which rule, and the way out.",
    "3": "Undetermined: theory decides neither way. `stability explain undetermined`.",
    "4": "Internal error: a defect of the program. STABILITY_TRACEBACK=1 shows where.",
    "130": "Interrupted from the keyboard.",
}


def entries() -> list[Entry]:
    """Everything that can be explained, by kind."""
    return [
        *(Entry(name=name, kind="verdict", text=text) for name, text in VERDICTS.items()),
        *(Entry(name=name, kind="reason", text=text) for name, text in REASONS.items()),
        *(Entry(name=name, kind="bottleneck", text=text) for name, text in BOTTLENECKS.items()),
        *(Entry(name=name, kind="exit code", text=text) for name, text in EXIT_CODES.items()),
        *_errors(),
        *_policies(),
        *glossary(),
    ]


def glossary_text() -> str:
    """docs/reference/glossary.md: packed with an installed package, in its folder in a checkout."""
    packed = resources.files(__package__) / "glossary.md"
    if packed.is_file():
        return packed.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")


def glossary() -> Iterator[Entry]:
    """The rows of its tables of symbol, name, meaning and unit; by their symbol where they have no name."""
    for line in glossary_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 4 or cells[0] == "symbol" or set(cells[0]) == {"-"}:
            continue
        symbol, name, meaning, unit = (plain(cell) for cell in cells)
        yield Entry(name=name or symbol, kind="term", text=meaning, symbol=symbol, unit=unit)


def plain(text: str) -> str:
    r"""Markdown and LaTeX as they read on a terminal.

    Examples
    --------
    >>> plain(r"iterations resident: $\lceil s/B\rceil + o - 1$")
    'iterations resident: ceil(s/B) + o - 1'
    """
    text = re.sub(r"\\lceil\s*(.+?)\s*\\rceil", r"ceil(\1)", text)
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text)
    return re.sub(r"\\(\w+)", r"\1", text.replace("$", "").replace("`", ""))


def _errors() -> Iterator[Entry]:
    from .. import errors

    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.StabilityError):
            yield Entry(name=name, kind="error", text=_docstring(value))


def _policies() -> Iterator[Entry]:
    from .. import policies
    from ..model.engine import ADMISSIONS, Scheduler

    rules = {
        "reserve": "Admit when the prompt and the longest output can be set aside: nothing is ever evicted.",
        "prompt_gate": "Admit when the whole prompt fits (vLLM's default); evict the latest admitted when outputs outgrow memory.",
        "chunk_gate": "Admit when the next chunk of the prompt fits (older vLLM, TensorRT-LLM's MAX_UTILIZATION).",
    }
    for name in ADMISSIONS:
        yield Entry(name=name, kind="policy", text=f"Admission rule. {rules[name]}")
    for name, value in sorted(vars(policies).items()):
        known = inspect.isclass(value) and issubclass(value, (Scheduler, policies.Router, policies.Predictor))
        if known and not inspect.isabstract(value) and value is not policies.Router:
            yield Entry(name=name, kind="policy", text=_docstring(value))


def _docstring(value: type) -> str:
    """What stands before the first section, without roles."""
    text = re.split(r"\n[A-Z][^\n]*\n-{3,}\n", inspect.getdoc(value) or "")[0]
    text = re.sub(r":\w+:`([^`]+)`", r"\1", text)
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n") if part.strip())
