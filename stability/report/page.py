"""`html_report`: the page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata, resources

from .._extras import needs
from .._result import Verdict, rate
from ..model.checks import check_pair
from ..model.fleet import Fleet
from ..model.targets import Targets
from ..model.workload import Workload
from ..theory.check import CheckResult, check
from ..theory.report import StabilityReport

MARKS = {0: "\N{CHECK MARK}", 1: "\N{MULTIPLICATION X}", 3: "?"}
"""Answers are told apart by a mark and a word, not by colour alone."""

TONES = {0: "good", 1: "bad", 3: "open"}
"""How the answer is coloured, by exit code."""

CODES = {
    0: "stable, and every stated target is met",
    1: "unstable, or a target is missed",
    3: "undetermined",
}


def html_report(
    fleet: Fleet,
    workload: Workload,
    *,
    targets: Targets | None = None,
    title: str = "fleet",
    plan_text: str = "",
    notes: Sequence[str] = (),
    command: str = "",
) -> str:
    """What `check` finds as an HTML page of its own: pictures, tables, assumptions; light and dark, no network, no scripts.

    The same arguments give the same page, to the byte.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        What arrives.
    targets : Targets, optional
        Limits besides stability.
    title : str
        What the page calls the plan.
    plan_text : str
        The plan file, to be shown on the page.
    notes : sequence of str
        Assumptions besides those of the analysis.
    command : str
        The command line that makes the page.

    Returns
    -------
    str
        The page; write it with `Path("report.html").write_text(page, encoding="utf-8")`.

    Raises
    ------
    MissingLibraryError
        If matplotlib or jinja2 is not installed (`pip install 'llm-stability[report]'`).
    UnservableError, NotModelledError
        As `analyze`.

    Examples
    --------
    >>> import stability as st
    >>> plan = st.example_plan()
    >>> page = st.html_report(plan.fleet, plan.workload, targets=plan.targets, title="chat")
    >>> page.startswith("<!doctype html>"), page.count("<svg"), "STABLE" in page
    (True, 5, True)
    """
    check_pair(fleet, workload)
    wanted = targets if targets is not None else Targets()
    return page_of(
        fleet,
        workload,
        wanted,
        check(fleet, workload, wanted),
        title=title,
        plan_text=plan_text,
        notes=notes,
        command=command,
    )


def page_of(
    fleet: Fleet,
    workload: Workload,
    targets: Targets,
    result: CheckResult,
    *,
    title: str,
    plan_text: str,
    notes: Sequence[str],
    command: str,
) -> str:
    """The page of a result that is there already."""
    needs("matplotlib", "jinja2")
    import jinja2

    from .pictures import pictures

    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    report = result.report
    return environment.from_string(template).render(
        title=title,
        verdict=str(result.verdict),
        word=_word(result),
        tone=TONES[result.exit_code],
        mark=MARKS[result.exit_code],
        reason=report.reason,
        exit_code=result.exit_code,
        exit_text=CODES[result.exit_code],
        figures=_figures(result),
        pictures=pictures(fleet, workload, targets, result),
        tables=_tables(result, fleet),
        standing=_standing(report),
        assumptions=[*report.assumptions, *notes],
        sources=[*dict.fromkeys(f"{p.name}: {note}" for p in fleet.pools for note in p.replica.notes)],
        references=report.references,
        plan_text=plan_text.rstrip(),
        command=command,
        version=_version(),
    )


def _figures(result: CheckResult) -> list[tuple[str, str]]:
    """The few numbers at the top."""
    report = result.report
    rows = dict(result.rows())
    names = ["rate", "capacity", "load", "bottleneck", "inter-token latency"]
    found = [(name, rows[name]) for name in names]
    if report.peak is not None:
        found.insert(1, ("peak", rate(report.peak.rate_per_s)))
    if result.targets:
        found.append(("targets", f"{sum(target.met for target in result.targets)} of {len(result.targets)} met"))
    return found


def _word(result: CheckResult) -> str:
    missed = sum(not target.met for target in result.targets)
    if result.verdict is Verdict.UNSTABLE or not missed:
        return str(result.verdict)
    return f"{result.verdict}, {missed} target{'s' * (missed > 1)} missed"


def _tables(result: CheckResult, fleet: Fleet) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """(title, header, rows) of each table."""
    report = result.report
    found: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = []
    answer = [(name.strip(), value) for name, value in result.rows() if name not in ("verdict", "because")]
    found.append(("The answer in figures", ("quantity", "value"), [*answer]))
    levers = result.lever_rows()
    if levers:
        found.append(("What changes it", ("change", "capacity", "gain", "verdict at this rate"), levers))
    found.append(("Pools", report.pool_header(), report.pool_rows()))
    found.append(("Latency by pool, approximate", result.latency.header(), result.latency.rows()))
    found.append(
        ("What serves", ("pool", "replicas", "GPUs", "KV tokens", "slots", "token budget", "admission"), _served(fleet))
    )
    return found


def _served(fleet: Fleet) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for pool in fleet.pools:
        replica, engine = pool.replica, pool.replica.engine
        policy = engine.admission if engine.scheduler is None else type(engine.scheduler).__name__
        gpus = f"{replica.gpus} x {replica.gpu}" if replica.gpu else str(replica.gpus)
        rows.append(
            (
                pool.name,
                str(pool.replicas),
                gpus,
                f"{replica.kv_capacity_tokens:,}",
                str(engine.max_num_seqs),
                str(engine.max_num_batched_tokens),
                f"{policy}, watermark {engine.watermark:g}" if engine.watermark else policy,
            )
        )
    return rows


def _standing(report: StabilityReport) -> list[tuple[str, str, str]]:
    """(figure, standing, why) of what the page says."""
    proved = report.proved_capacity_per_s
    return [
        (
            f"bound, any policy: {rate(report.upper_bound_per_s)}",
            "proved, necessary",
            "no scheduler that serves one token per request and iteration is stable above it",
        ),
        (
            f"proved: {rate(proved)}" if proved is not None else "proved: none",
            "proved, sufficient" if proved is not None else "-",
            "reservation admission is stable below it"
            if proved is not None
            else "known for reservation admission only",
        ),
        (
            f"capacity: {rate(report.capacity_per_s)}",
            "approximate",
            "large-system formula under the engine's own admission; exact as replicas grow large",
        ),
        (
            f"stable below: {rate(report.stable_below_per_s)}",
            "claimed",
            "below the capacity by a margin that covers its measured error; undetermined from here on",
        ),
        (
            f"unstable above: {rate(report.unstable_above_per_s)}",
            "claimed",
            "the upper end of the capacity or of the bound, whichever is known for this policy",
        ),
        ("latencies and KV in use", "approximate", "diffusion around the operating point; infinite at capacity"),
        ("step times and KV capacity", "taken as given", "their sources and errors are listed below"),
    ]


def _version() -> str:
    try:
        return metadata.version("llm-stability")
    except metadata.PackageNotFoundError:
        return ""
