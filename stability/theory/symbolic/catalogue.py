"""All derivations in the order of the theory, and the documentation page made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import sympy as sp

from . import capacities, drift, families, flow_balance, geometric_ode, lundberg, sensitivities, volumes
from .derivation import Derivation
from .symbols import printed

Derive = Callable[[], Derivation | tuple[Derivation, ...]]


def _family_means(family: str) -> tuple[Derivation, ...]:
    """E[g] (one chunk) and E[W] with prompts and outputs of one family."""
    means = (volumes.mean_volume(chunked=False), flow_balance.mean_work())
    return tuple(families.in_families(mean, prompt=family, output=family) for mean in means)


CATALOGUE: Mapping[str, tuple[Derive, ...]] = {
    "Work and flow balance": (
        flow_balance.reads,
        flow_balance.prefill_context,
        flow_balance.work,
        flow_balance.mean_work,
        flow_balance.iteration_time,
        partial(flow_balance.iteration_time, idling=True),
        flow_balance.inter_token_latency,
        flow_balance.kv_in_use,
    ),
    "Residence and KV volume": (
        volumes.iterations,
        *(partial(volumes.volume, convention=name) for name in volumes.CONVENTIONS),
        volumes.grown,
        volumes.held_products,
        volumes.mean_volume,
        partial(volumes.mean_volume, chunked=False),
    ),
    "Load and capacity": (
        capacities.bound,
        capacities.load,
        capacities.capacity,
        *(partial(capacities.capacity, resource=name) for name in capacities.RESOURCES),
        capacities.packing_slack,
    ),
    "Sensitivity": (
        partial(sensitivities.sensitivity, "C_r"),
        *(
            partial(sensitivities.sensitivity, name, resource="kv_memory")
            for name in ("M", "c_0", "c_p", "c_d", "c_k", "c_a", "E[s]", "E[o]", "E[s o]", "E[o^2]", "E[s^2]", "E[m^2]")
        ),
        partial(sensitivities.sensitivity, "N", resource="batch_slots"),
        partial(sensitivities.sensitivity, "B", resource="token_budget"),
        partial(sensitivities.elasticity, "C_r"),
        partial(sensitivities.elasticity, "M", resource="kv_memory"),
        sensitivities.time_balance,
    ),
    "Length families": (
        *(partial(families.length_moment, name, order) for name in families.FAMILIES for order in (1, 2, 3)),
        *(partial(families.length_transform, name) for name in families.TRANSFORMED),
        *(partial(_family_means, name) for name in families.FAMILIES),
    ),
    "Eviction": (
        lundberg.laplace_exponent,
        *(
            partial(lundberg.laplace_exponent, prompt=name, output=name)
            for name in ("constant", "uniform", "geometric", "gamma")
        ),
        partial(lundberg.exponent_expansion, order=2),
        partial(lundberg.exponent, lengths="constant"),
        partial(lundberg.exponent, lengths="exponential"),
        lundberg.first_eviction,
        lundberg.next_eviction,
        lundberg.ladder_height,
        lundberg.slack_when_evicted,
        lundberg.evictions_per_request,
        lundberg.generated_when_evicted,
        lundberg.age_transform,
        lundberg.free_memory,
        capacities.eviction_waste,
        capacities.gate_capacity,
    ),
    "Geometric outputs": (
        geometric_ode.step_time,
        *(
            partial(function, regime=regime)
            for regime in geometric_ode.REGIMES
            for function in (
                geometric_ode.equations,
                geometric_ode.equilibrium,
                geometric_ode.jacobian,
                geometric_ode.stability_conditions,
            )
        ),
        geometric_ode.slowest_mode,
    ),
    "Drift of reservation admission": (
        *(partial(drift.blocked_step, resource=name) for name in capacities.RESOURCES),
        drift.drift_margin,
        partial(drift.drift_margin, resources=("kv_memory",)),
        drift.bounded_set,
        drift.return_time,
        drift.proved_capacity,
    ),
}
"""Section title to the derivations in it, as functions without arguments."""

BRIEF = ("Sensitivity", "Length families")
"""Sections of which the page shows results in a table, and steps only of the first derivation."""


INTRODUCTIONS: Mapping[str, str] = {
    "Residence and KV volume": """\
$m = \\lceil s/B\\rceil$ is a variable of its own, with moments $E[m]$ and $E[m^2]$ that no moment of $s$ gives. Where every prompt fits
in one chunk, $m = 1$.""",
    "Sensitivity": """\
Valid while the same resource binds. Moments are independent coordinates: in $E[s]$, for instance, $E[s\\,o]$ and $E[m]$ stay fixed.
The steps of the general resource, then results in which $\\lambda^*$ stands for the capacity of the resource named.""",
    "Length families": """\
Untruncated. Constant, uniform, geometric and discrete (here two values) lengths are integers, and exact. Gamma, lognormal and Weibull
are the continuous laws; the package rounds lengths to integers, which adds about 1/12 to the second moment. Lognormal and Weibull
have no transform in closed form. Means of $g$ are for one chunk and independent lengths.""",
    "Eviction": """\
$Z$ is the KV that completions have freed less what decoding has grown. In iterations, and under a token budget, the chances of an
eviction have no closed form: the package computes them from the Wiener-Hopf factors on a lattice (`stability/theory/excursions.py`). The
extra work $w$ and KV volume $v$ of an eviction follow from tokens being kept and recomputed as prompt.""",
    "Geometric outputs": """\
Geometric outputs forget their age, so requests $X$, KV $Z$ and queue $Q$ close. Below saturation the queue is empty; with memory full
the admissions are what releases leave beyond growth; paced, a share $\\kappa$ of the queue is admitted in each iteration. What the
closure cannot show: without ages it always settles, also where lengths of few values synchronise. Claim nothing from it for other
length laws.""",
    "Drift of reservation admission": """\
$V$ is the sum over queued and resident requests of remaining work and $c_0$ times remaining occupancy over
$(1-\\delta_r)C_r$. A step that leaves a request waiting lowers it by at least its own duration: the work done falls due exactly; if
the token budget is used up the token term falls by $c_0$; otherwise the remaining iterations of every resident fall by one, and either
all $N$ slots do so or more than $(1-\\delta)M$ is reserved. No term rises. Arrivals add $\\lambda\\tau E[v]$ on average, so with
$\\varepsilon > 0$ the expected change is at most $-\\varepsilon\\tau$ wherever somebody waits, which is certain where $V > V_b$: the chain
is positive recurrent (Foster). `tests/theory/symbolic/test_drift.py` checks each step of the reference scheduler in exact fractions.""",
}
"""Words that open a section of the page."""


def derive_all() -> dict[str, list[Derivation]]:
    """Every derivation, by section.

    Returns
    -------
    dict of str to list of Derivation
    """
    sections: dict[str, list[Derivation]] = {}
    for title, functions in CATALOGUE.items():
        sections[title] = []
        for function in functions:
            found = function()
            sections[title] += found if isinstance(found, tuple) else (found,)
    return sections


HEADER = """\
# Derivations

<!-- Made by `python -m stability.theory.symbolic > docs/theory/derivations.md`, sympy {version}. -->

The formulas of the [theory](theory.md), derived with sympy from the definitions. Each has its standing, as there; "exact" is algebra
on the stated assumptions. In Python the same steps, results and LaTeX come from `stability.theory.symbolic`, and each result is a
function of numbers:

```python
from stability.theory import symbolic

tau = symbolic.iteration_time()  # shows its steps in a notebook
print(tau.summary())
tau.lambdify("lambda", "c_0", "E[W]")(10.0, 0.01, 0.05)  # 0.02
```

Symbols are those of the [glossary](../reference/glossary.md); the last table lists the others.
"""


def markdown(sections: Mapping[str, list[Derivation]] | None = None) -> str:
    """The documentation page.

    Parameters
    ----------
    sections : mapping of str to list of Derivation, optional
        From `derive_all`, which is called if omitted.

    Returns
    -------
    str
        MyST Markdown with dollar math.
    """
    parts = [HEADER.format(version=sp.__version__)]
    used: dict[str, tuple[str, str, str]] = {}
    for title, derivations in (derive_all() if sections is None else sections).items():
        parts.append(f"\n## {title}\n")
        if title in INTRODUCTIONS:
            parts.append(INTRODUCTIONS[title])
        detailed = derivations[:1] if title in BRIEF else derivations
        parts += [_section(item) for item in detailed]
        parts += [_line(item) for item in derivations[len(detailed) :]]
        for item in derivations:
            for symbol, entry in item.quantities.items():
                used[str(symbol)] = (entry.latex, entry.meaning, entry.unit)
    parts.append("\n## Symbols of the results\n\n| symbol | meaning | unit |\n|---|---|---|")
    parts += [f"| ${latex}$ | {_plain(meaning)} | {unit} |" for _, (latex, meaning, unit) in sorted(used.items())]
    return "\n".join(parts) + "\n"


def _section(derivation: Derivation) -> str:
    lines = [
        f"\n### {_sentence(derivation.title)}\n",
        f"*{_sentence(derivation.standing)}.*{_assumptions(derivation)}\n",
    ]
    for number, step in enumerate(derivation.steps, 1):
        lines.append(f"{number}. {_plain(step.why)}\n\n   $$\n   {step.latex()}\n   $$\n")
    lines.append(f"Result:\n\n$$\n\\boxed{{{printed(derivation.equation)}}}\n$$")
    return "\n".join(lines)


def _line(derivation: Derivation) -> str:
    """The result alone; of a sensitivity the last step, which writes lambda* for the capacity."""
    compact = derivation.title.startswith(("sensitivity", "elasticity of"))
    shown = derivation.steps[-1].equation if compact else derivation.equation
    return f"\n{_sentence(derivation.title)}:\n\n$$\n{printed(shown)}\n$$"


def _assumptions(derivation: Derivation) -> str:
    return f" Assumes: {'; '.join(map(_plain, derivation.assumptions))}." if derivation.assumptions else ""


def _sentence(text: str) -> str:
    return _plain(text[0].upper() + text[1:])


def _plain(text: str) -> str:
    """Words that Markdown must not read as markup."""
    for sign in "*_<>[]^|":
        text = text.replace(sign, "\\" + sign)
    return text
