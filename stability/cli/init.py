"""`stability init`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from .. import units
from ..errors import InputError, PlanSyntaxError, check_integer, check_number
from ..model.engine import ADMISSIONS
from .output import Command, json_option, print_json, print_text

WORD = r"[A-Za-z][\w-]*"
"""What YAML reads as a text without quotes."""


def _catalog(kind: str) -> list[str]:
    from ..model import catalog

    if kind == "gpus":
        return [gpu.name for gpu in catalog.gpus()]
    if kind == "models":
        return [model.name for model in catalog.models()]
    return [workload.name for workload in catalog.workloads()]


def _complete(kind: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
        folded = incomplete.casefold()
        return [CompletionItem(name) for name in _catalog(kind) if name.casefold().startswith(folded)]

    return names


def gpu_name(text: str) -> str:
    """A GPU of the catalog; nearest names in the error."""
    from ..model import catalog

    return catalog.gpu(text).name


def model_name(text: str) -> str:
    """A model of the catalog; nearest names in the error."""
    from ..model import catalog

    return catalog.model(text).name


def lengths_of(text: str) -> str:
    """The `lengths` of a plan: a workload of the catalog, PROMPT/OUTPUT in tokens, or a trace file.

    Examples
    --------
    >>> lengths_of("azure-conv-2023"), lengths_of("1k/200"), lengths_of("requests.csv")
    ('azure-conv-2023', '{prompt: 1000, output: 200}', '{trace: "requests.csv"}')
    """
    prompt, slash, output = text.partition("/")
    if slash and re.match(r"\d", prompt) and re.match(r"\d", output):
        counts = [check_integer("--lengths", units.tokens("--lengths", part), at_least=1) for part in (prompt, output)]
        return "{{prompt: {}, output: {}}}".format(*counts)
    if re.search(r"\.(csv|jsonl|gz|zst)$", text):
        return f"{{trace: {json.dumps(text)}}}"
    from ..model import catalog

    catalog.lengths(text)
    return text


def _positive(name: str, parse: Callable[[str, object], float]) -> Callable[[str], float]:
    return lambda text: check_number(name, parse(name, text), above=0)


def _whole(name: str, text: str) -> int:
    return check_integer(name, units.count(name, text), at_least=1)


def _share(name: str, text: str) -> float:
    return check_number(name, units.share(name, text), at_least=0, below=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A value of the plan: how it is asked for, and what it must be."""

    text: str
    default: str
    parse: Callable[[str], object]
    optional: bool = False


QUESTIONS = {
    "gpu": Question(text="GPU (stability catalog gpus)", default="H100-SXM", parse=gpu_name),
    "model": Question(text="model (stability catalog models)", default="Llama-3.1-8B", parse=model_name),
    "tensor_parallel": Question(text="GPUs per replica", default="1", parse=partial(_whole, "--tensor-parallel")),
    "replicas": Question(text="replicas", default="8", parse=partial(_whole, "--replicas")),
    "rate": Question(text="requests per second (or 600/min)", default="40", parse=_positive("--rate", units.rate)),
    "lengths": Question(
        text="lengths: a workload of `stability catalog workloads`, PROMPT/OUTPUT tokens, or a trace file",
        default="azure-conv-2023",
        parse=lengths_of,
    ),
    "itl": Question(
        text="target inter-token latency (none to skip)",
        default="50ms",
        parse=_positive("--itl", units.seconds),
        optional=True,
    ),
    "headroom": Question(
        text="share of the capacity to keep free", default="10%", parse=partial(_share, "--headroom"), optional=True
    ),
}
"""Asked in this order on a terminal, where the option is not given."""

REQUIRED = ("gpu", "model", "rate", "lengths")
"""Must be given where nobody can be asked."""

DEFAULTS = {"tensor_parallel": 1, "replicas": 1}
"""What else a plan needs, where nobody can be asked."""


@click.command(
    cls=Command,
    examples=(
        ("stability init --out plan.yaml", "a few questions, on a terminal"),
        (
            "stability init --gpu H100-SXM --model Llama-3.1-8B --rate 40 --lengths azure-conv-2023 --replicas 8",
            "writes plan.yaml without asking",
        ),
        (
            "stability init --gpu L4 --model Llama-3.1-8B --rate 2 --lengths 1000/200 --out small.yaml --force",
            "constant lengths, over a file that is there",
        ),
    ),
    exit_codes="0 written, 2 bad input (nothing is written), 130 interrupted.",
)
@click.option("--gpu", shell_complete=_complete("gpus"), metavar="NAME", help="A GPU of the catalog.")
@click.option("--model", shell_complete=_complete("models"), metavar="NAME", help="A model of the catalog.")
@click.option("--tensor-parallel", metavar="N", help="GPUs per replica.")
@click.option("--replicas", metavar="N", help="Replicas.")
@click.option("--rate", metavar="RATE", help="Requests: 40 (per second), 600/min.")
@click.option(
    "--lengths",
    shell_complete=_complete("workloads"),
    metavar="WHAT",
    help="A workload of the catalog, PROMPT/OUTPUT tokens (1000/200), or a trace file.",
)
@click.option("--itl", metavar="TIME", help="Target for the mean inter-token latency: 50ms; none.")
@click.option("--ttft-p99", metavar="TIME", help="Target for the 99th percentile of the time to first token: 2s.")
@click.option("--headroom", metavar="SHARE", help="Share of the capacity to keep free: 10%; none.")
@click.option("--max-num-seqs", metavar="N", help="Batch slots.")
@click.option("--max-num-batched-tokens", metavar="N", help="Token budget of an iteration.")
@click.option("--admission", type=click.Choice(ADMISSIONS), help="When a request is admitted.")
@click.option("--watermark", metavar="SHARE", help="Share of the KV cache kept free at admission.")
@click.option("--pool", default="main", show_default=True, metavar="NAME", help="What the pool is called.")
@click.option(
    "--out", type=click.Path(), default="plan.yaml", show_default=True, metavar="FILE", help="The file to write."
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the default of every question.")
@json_option
def init(
    gpu: str | None,
    model: str | None,
    tensor_parallel: str | None,
    replicas: str | None,
    rate: str | None,
    lengths: str | None,
    itl: str | None,
    ttft_p99: str | None,
    headroom: str | None,
    max_num_seqs: str | None,
    max_num_batched_tokens: str | None,
    admission: str | None,
    watermark: str | None,
    pool: str,
    out: str,
    force: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Write a plan from a few questions, or from options alone.

    On a terminal what no option gives is asked, each question with a default. The plan is checked before it is written, and a
    file that is there is kept unless --force is given.
    """
    path = Path(out)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--out = {out!r}, must end in .yaml. Name a plan file.")
    if path.exists() and not force:
        raise InputError(f"--out = {out!r} exists already, must be a new file. Name another one, or give --force.")
    given = {
        "gpu": gpu,
        "model": model,
        "tensor_parallel": tensor_parallel,
        "replicas": replicas,
        "rate": rate,
        "lengths": lengths,
        "itl": itl,
        "headroom": headroom,
    }
    values = _asked(given) if sys.stdin.isatty() and not yes else _taken(given, yes)
    values["ttft_p99"] = None if ttft_p99 is None else _positive("--ttft-p99", units.seconds)(ttft_p99)
    engine: dict[str, Any] = {
        "max_num_seqs": max_num_seqs and _whole("--max-num-seqs", max_num_seqs),
        "max_num_batched_tokens": max_num_batched_tokens and _whole("--max-num-batched-tokens", max_num_batched_tokens),
        "admission": admission,
        "watermark": watermark and _share("--watermark", watermark),
    }
    text = plan_text(pool, values, {name: value for name, value in engine.items() if value is not None})
    _check(text, path)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out = {out!r} cannot be written ({error.strerror}). Choose another file.") from None
    steps = [f"stability check {out}", f"stability validate {out}", f"stability tune {out}"]
    if as_json:
        print_json({"schema": "stability/init/1", "path": out, "plan": text, "next": steps})
    else:
        print_text(
            f"wrote {out}\n\nnext\n  {steps[0]}     is it stable?\n  {steps[2]}      better engine settings\n"
            f"  {steps[1]}  theory against simulation"
        )
    return 0


def _asked(given: dict[str, str | None]) -> dict[str, Any]:
    """The options that are given, and an answer for every other question; a wrong answer is asked for again."""
    values: dict[str, Any] = {}
    for name, question in QUESTIONS.items():
        text = given[name]
        if text is not None:
            values[name] = _parsed(question, text)
            continue

        def convert(answer: str, question: Question = question) -> object:
            try:
                return _parsed(question, answer)
            except InputError as error:
                raise click.UsageError(str(error)) from None

        values[name] = click.prompt(question.text, default=question.default, value_proc=convert, err=True)
    return values


def _taken(given: dict[str, str | None], defaults: bool) -> dict[str, Any]:
    """The options that are given, and defaults for the rest."""
    missing = [f"--{name}" for name in REQUIRED if given[name] is None]
    if missing and not defaults:
        raise InputError(
            f"{', '.join(missing)} missing, must be given where nobody can be asked. Give {'it' if len(missing) == 1 else 'them'}, "
            "or --yes for defaults."
        )
    values: dict[str, Any] = {}
    for name, question in QUESTIONS.items():
        text = given[name]
        if text is None:
            values[name] = question.parse(question.default) if defaults else DEFAULTS.get(name)
        else:
            values[name] = _parsed(question, text)
    return values


def _parsed(question: Question, text: str) -> object:
    return None if question.optional and text.strip().casefold() == "none" else question.parse(text.strip())


def plan_text(pool: str, values: dict[str, Any], engine: dict[str, Any]) -> str:
    """The plan as YAML, in the order in which people read it."""
    lines = [
        "# yaml-language-server: $schema=plan-1.json",
        "schema: stability/plan/1",
        "workload:",
        f"  rate_per_s: {values['rate']:g}",
        f"  lengths: {values['lengths']}",
        "fleet:",
        f"  - pool: {pool if re.fullmatch(WORD, pool) else json.dumps(pool)}",
        f"    gpu: {values['gpu']}",
        f"    model: {values['model']}",
    ]
    if values["tensor_parallel"] != 1:
        lines.append(f"    tensor_parallel: {values['tensor_parallel']}")
    lines.append(f"    replicas: {values['replicas']}")
    if engine:
        lines += ["    engine:", *(f"      {name}: {value}" for name, value in engine.items())]
    targets = [
        *([f"  itl_ms: {1e3 * values['itl']:g}"] if values["itl"] is not None else []),
        *([f"  ttft_p99_ms: {1e3 * values['ttft_p99']:g}"] if values["ttft_p99"] is not None else []),
        *([f"  headroom: {100 * values['headroom']:g}%"] if values["headroom"] is not None else []),
    ]
    return "\n".join([*lines, *(["targets:", *targets] if targets else [])]) + "\n"


def _check(text: str, path: Path) -> None:
    """Refuse a plan that does not make sense as a whole: a model that does not fit the GPU, say."""
    from ..io.plan import plan_from_text

    if not path.parent.is_dir():
        raise InputError(f"--out = {str(path)!r}, must be in a folder that exists. Create {str(path.parent)!r} first.")
    try:
        plan_from_text(text, name=str(path), folder=path.parent)
    except PlanSyntaxError:
        raise
    except InputError as error:
        raise InputError(f"{error} (nothing was written)") from None
