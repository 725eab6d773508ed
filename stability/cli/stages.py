"""`stability check` of a plan whose pools prefill or decode: what is known of them, which is less."""

from __future__ import annotations

from dataclasses import replace

from .._result import Verdict, percent, seconds
from ..control.disaggregated import Disaggregation
from ..control.pd import disaggregation
from ..errors import InputError
from ..io.plan import Plan
from ..model.fleet import Fleet
from ..model.targets import Targets
from ..model.workload import Workload
from .output import print_json, print_text


def has_stages(plan: Plan) -> bool:
    """Whether some pool computes only a part of each request."""
    return any(pool.role != "mixed" for pool in plan.fleet.pools)


def check_stages(plan: Plan, workload: Workload, name: str, as_json: bool) -> int:
    """Print loads by stage, and the verdict that the necessary condition allows; the exit code.

    That every stage has load below 1 is necessary. That it suffices was not measured, so that nothing is called stable.
    """
    if plan.targets.ttft_mean_s is not None or plan.targets.ttft_p99_s is not None:
        raise InputError(
            f"{name}: targets for the time to first token, must be left out for prefill and decode pools: it has no analysis "
            "there yet. Remove them, or give the pools the role mixed."
        )
    result = disaggregation(plan.fleet, workload, itl_s=plan.targets.itl_s)
    targets = _targets(result, plan.targets)
    least = disaggregation(_gated(plan.fleet), workload).load
    if least > 1:
        verdict, reason = (
            Verdict.UNSTABLE,
            f"a stage gets {least:.3f} times what it can serve under any admission policy",
        )
    elif result.load > 1:
        verdict, reason = (
            Verdict.UNDETERMINED,
            f"load {result.load:.3f} under this admission policy, by an approximation",
        )
    else:
        verdict = Verdict.UNDETERMINED
        reason = f"every stage has room (load {result.load:.3f}), which is necessary; that it suffices is not proved or validated"
    code = 1 if verdict is Verdict.UNSTABLE or not all(met for _, _, met in targets) else 3
    if as_json:
        found = [{"name": label, "text": text, "met": met} for label, text, met in targets]
        print_json(
            {
                "plan": name,
                **result.to_dict(),
                "verdict": verdict.value,
                "reason": reason,
                "targets": found,
                "exit_code": code,
            }
        )
        return code
    head = f"{name}\n\n{verdict}: {reason}"
    lines = [f"target {label}  {'met' if met else 'missed'}: {text}" for label, text, met in targets]
    assumed = "\n".join(f"- {note}" for note in result.assumptions)
    print_text("\n\n".join([head, result.summary(), *(["\n".join(lines)] if lines else []), f"assumed\n{assumed}"]))
    return code


def _gated(fleet: Fleet) -> Fleet:
    """The fleet under prompt gates, whose condition is necessary for every policy."""
    pools = [
        replace(pool, replica=replace(pool.replica, engine=replace(pool.replica.engine, admission="prompt_gate")))
        for pool in fleet.pools
    ]
    return Fleet(pools, fleet.links)


def _targets(result: Disaggregation, targets: Targets) -> list[tuple[str, str, bool]]:
    """(name, figures, met) of each stated target that has an analysis."""
    found = []
    if targets.itl_s is not None:
        met = result.load < 1 and result.itl_s <= targets.itl_s
        found.append(("ITL", f"{seconds(result.itl_s)} against {seconds(targets.itl_s)}", met))
    if targets.headroom is not None:
        spare = 1 - result.load
        found.append(("headroom", f"{percent(spare)} against {percent(targets.headroom)}", spare >= targets.headroom))
    return found
