"""The drift certificate by plain arithmetic, step by step of the reference scheduler, in exact fractions."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

import stability as st
from stability.sim.domain import RESERVE, Limits
from stability.sim.reference.replica import ReferenceReplica, ReferenceRequest
from stability.theory import symbolic as sym

LAW = {
    "c_0": Fraction(1, 100),
    "c_p": Fraction(1, 2000),
    "c_d": Fraction(1, 3000),
    "c_k": Fraction(1, 40000),
    "c_a": Fraction(1, 10**6),
}
ENGINES = {
    "memory": Limits(
        block_size=4,
        capacity_blocks=60,
        watermark_blocks=2,
        max_seqs=16,
        max_tokens=200,
        admission=RESERVE,
        prefix_caching=False,
    ),
    "slots": Limits(
        block_size=1,
        capacity_blocks=900,
        watermark_blocks=0,
        max_seqs=4,
        max_tokens=100,
        admission=RESERVE,
        prefix_caching=False,
    ),
    "budget": Limits(
        block_size=4,
        capacity_blocks=400,
        watermark_blocks=0,
        max_seqs=12,
        max_tokens=16,
        admission=RESERVE,
        prefix_caching=False,
    ),
    "mixed": Limits(
        block_size=4,
        capacity_blocks=40,
        watermark_blocks=1,
        max_seqs=6,
        max_tokens=24,
        admission=RESERVE,
        prefix_caching=False,
    ),
}
LONGEST_PROMPT, LONGEST_OUTPUT = 60, 30


class Certificate:
    """V of a request, by the definition, and the level V_b."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        largest = self.reserved(LONGEST_PROMPT + LONGEST_OUTPUT)
        self.memory = limits.capacity_blocks * limits.block_size
        self.delta = Fraction(largest + limits.watermark_blocks * limits.block_size, self.memory)
        assert self.delta < 1

    def reserved(self, tokens: int) -> int:
        return -(-tokens // self.limits.block_size) * self.limits.block_size

    def left(self, request: ReferenceRequest) -> tuple[Fraction, int, int]:
        """Work, iterations and tokens still to come."""
        s, o, g = request.prompt_tokens, request.output_tokens, request.generated
        prompt = s - request.computed if g == 0 else 0
        decodes = o - max(g, 1)
        work = LAW["c_p"] * prompt + LAW["c_d"] * decodes
        work += LAW["c_k"] * sum(s + j for j in range(o - decodes, o))
        if prompt:
            work += LAW["c_a"] * Fraction(s * s - request.computed**2, 2)
        return work, -(-prompt // self.limits.max_tokens) + decodes, prompt + decodes

    def of(self, request: ReferenceRequest) -> Fraction:
        work, iterations, tokens = self.left(request)
        reserved = self.reserved(request.prompt_tokens + request.max_output_tokens)
        share = reserved * iterations / ((1 - self.delta) * self.memory)
        return work + LAW["c_0"] * (
            share + Fraction(iterations, self.limits.max_seqs) + Fraction(tokens, self.limits.max_tokens)
        )

    def total(self, replica: ReferenceReplica) -> Fraction:
        return sum((self.of(r) for r in (*replica.waiting, *replica.running)), Fraction(0))

    def level(self) -> Fraction:
        """V_b from the derivation, with the largest request there can be."""
        whole = ReferenceRequest(
            index=0,
            arrival_s=0.0,
            prompt_tokens=LONGEST_PROMPT,
            output_tokens=LONGEST_OUTPUT,
            max_output_tokens=LONGEST_OUTPUT,
        )
        work, iterations, tokens = self.left(whole)
        values = {
            "N": self.limits.max_seqs,
            "B": self.limits.max_tokens,
            "W_max": work,
            "n_max": iterations,
            "t_max": tokens,
        }
        found = sym.bounded_set().at(values | {"c_0": LAW["c_0"], "delta": self.delta})
        return Fraction(int(found.p), int(found.q))


def step_time(replica: ReferenceReplica) -> Fraction:
    """Duration of the step under way, exactly."""
    time = LAW["c_0"]
    for request, tokens in replica._scheduled:
        if request.prefilling:
            past = request.computed - tokens
            time += LAW["c_p"] * tokens + LAW["c_a"] * tokens * (past + Fraction(tokens, 2))
        else:
            time += LAW["c_d"] + LAW["c_k"] * request.computed
    return time


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_that_leaves_somebody_waiting_lowers_v_by_its_duration(engine: str) -> None:
    """A random walk of states: bursts of random requests, 350 steps; and V above V_b means that somebody waits."""
    limits, rng = ENGINES[engine], random.Random(7)
    law = st.IterationTime(base_s=0.01)  # its times are not used
    replica = ReferenceReplica(limits=limits, law=law)
    certificate, made, blocked, above, cut = Certificate(limits), 0, 0, 0, 0
    level = certificate.level()
    for _ in range(350):
        burst = rng.choice([0, 0, 0, 1, 1, 2, 8]) if len(replica.waiting) < 40 else 0
        for _ in range(max(burst, not (replica.waiting or replica.running))):
            output = rng.randint(1, LONGEST_OUTPUT)
            request = ReferenceRequest(
                index=made,
                arrival_s=0.0,
                prompt_tokens=rng.randint(1, LONGEST_PROMPT),
                output_tokens=output,
                max_output_tokens=rng.randint(output, LONGEST_OUTPUT),
            )
            replica.enqueue(request, 0.0)
            made += 1
        if replica.next_start_s == float("inf"):
            replica.next_start_s = 0.0
        before = certificate.total(replica)
        replica.begin_step()
        tau, waits = step_time(replica), bool(replica.waiting)
        cut += any(r.prefilling and r.computed < r.prompt_tokens for r in replica.running)
        replica.finish_step()
        fall = before - certificate.total(replica)
        assert fall >= tau - LAW["c_0"]  # the work falls due whether anybody waits or not
        if waits:
            assert fall >= tau
            blocked += 1
        if before > level:
            assert waits
            above += 1
    assert blocked > 150
    assert above > 20
    assert cut > 10 or engine != "budget"  # chunks cut short, which the proof must bear


def test_the_margin_is_what_arrivals_leave() -> None:
    """lambda E[v] by averaging V over the requests of a class, against epsilon of the derivation and the numeric proof."""
    limits, rng = ENGINES["mixed"], random.Random(3)
    certificate, count, rate = Certificate(limits), 400, Fraction(1)
    requests = [
        ReferenceRequest(index=i, arrival_s=0.0, prompt_tokens=rng.randint(1, 60), output_tokens=o, max_output_tokens=o)
        for i in range(count)
        if (o := rng.randint(1, 30))
    ]
    mean = sum((certificate.of(r) for r in requests), Fraction(0)) / count
    parts = [(*certificate.left(r), certificate.reserved(r.prompt_tokens + r.max_output_tokens)) for r in requests]
    values = {
        "lambda": rate,
        "c_0": LAW["c_0"],
        "M": certificate.memory,
        "N": limits.max_seqs,
        "B": limits.max_tokens,
        "delta": certificate.delta,
        "E[W]": sum((p[0] for p in parts), Fraction(0)) / count,
        "E[R n]": Fraction(sum(p[3] * p[1] for p in parts), count),
        "E[n]": Fraction(sum(p[1] for p in parts), count),
        "E[s + o - 1]": Fraction(sum(p[2] for p in parts), count),
    }
    epsilon = sym.drift_margin().at(values)
    assert Fraction(int(epsilon.p), int(epsilon.q)) == 1 - rate * mean
    assert sym.drift_margin().at(values | {"lambda": sym.proved_capacity().at(values)}) == 0


@pytest.mark.parametrize("resource", ["kv_memory", "batch_slots", "token_budget"])
def test_no_blocked_step_falls_short(resource: str) -> None:
    surplus = sym.blocked_step(resource=resource)
    for over in (0, 1, 500):
        assert surplus.at({"U+": over, "c_0": LAW["c_0"], "M": 1000, "delta": Fraction(1, 10)}) >= 0


def test_the_level_is_reached_by_the_largest_requests_filling_the_cache() -> None:
    """Four fresh requests of 25 tokens reserved in a cache of 100: V summed over them is V_b, no less."""
    delta, work, iterations, tokens, budget = Fraction(1, 4), Fraction(3, 10), 10, 20, 64
    base = LAW["c_0"]
    each = work + base * (25 * iterations / ((1 - delta) * 100) + Fraction(iterations, 4) + Fraction(tokens, budget))
    values = {"N": 4, "B": budget, "W_max": work, "n_max": iterations, "t_max": tokens, "c_0": base, "delta": delta}
    assert sym.bounded_set().at(values) == 4 * each
    assert sym.return_time().at({"V": 6, "epsilon": Fraction(1, 5)}) == 30
