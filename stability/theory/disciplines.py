r"""Stability of batching disciplines under a token budget, without a memory limit (arXiv 2504.07347).

A request is v_p prefill and v_d decode tokens (means m_p, m_d; with the first token from the prefill, v_d = o - 1); a batch of b <= B tokens takes
t(b), at most one decode token per request in it. Where b/t(b) is greatest at b = B:

- **Necessary**, any discipline (Theorem 2a): `lambda (m_p + m_d) <= B/t(B)`. Above, the backlog of tokens grows by the difference.
- **Sufficient**, every work-conserving discipline (Theorem 2b): `<`. Work-conserving: a batch is full whenever the requests
  present could fill it. Sarathi-Serve (decodes first, prefill in chunks) and Orca (prefill first, decodes in what is left) are.
- Not work-conserving: decode-only while any decode is pending (FasterTransformer), and prefill-only, in whole prompts, while any
  prefill is pending (vLLM before chunked prefill). Their regions here are for constant lengths: `decode_first_rate`, exact, and
  `prefill_first_rates`, a bracket.
- Pathwise, deterministic arrivals with load at most 1: backlog at most (B + 1)(v_p + v_d) tokens under a work-conserving discipline.

None of this holds with a KV limit, a limit on the requests per batch, or cyclic routes through several servers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..errors import InputError, NotModelledError, check_integer, check_number
from ..model.iteration import BatchLaw, IterationLaw, IterationTime


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRegion:
    """The region of a server with a token budget.

    Attributes
    ----------
    batch_s : float
        t(B).
    tokens_per_s : float
        sup b/t(b) over b <= B: no discipline computes more.
    best_batch : int
        Where it is reached: B for work-conserving disciplines to reach it.
    rate_per_s : float
        Requests/s at the boundary.
    """

    batch_s: float
    tokens_per_s: float
    best_batch: int
    rate_per_s: float

    def backlog_tokens_per_s(self, rate_per_s: float, tokens: float) -> float:
        """Growth of the backlog at a rate of requests of that many tokens on average; 0 within the region."""
        return max(0.0, rate_per_s * tokens - self.tokens_per_s)


def batch_times_s(law: IterationLaw, budget: int) -> FloatArray:
    """t(b) for b = 0..budget, of a law that looks at the number of tokens only. Shape (budget + 1,).

    Raises
    ------
    NotModelledError
        If time depends on anything but the number of tokens.
    """
    check_integer("budget", budget, at_least=1)
    b = np.arange(budget + 1, dtype=np.float64)
    if isinstance(law, IterationTime):
        flat = (
            law.per_prefill_token_s == law.per_decode_token_s
            and law.per_kv_token_s == 0
            and law.per_prefill_context_s == 0
        )
        if flat:
            return np.asarray(law.base_s + law.per_decode_token_s * b)
    elif isinstance(law, BatchLaw) and law.per_kv_token_s == 0 and law.per_prefill_context_s == 0:
        return np.asarray(law.of_batch_s(b))
    raise NotModelledError(
        f"{type(law).__name__} depends on more than the tokens of a batch, must not for this region. "
        "Use `analyze`, whose rows hold for every law."
    )


def token_region(law: IterationLaw, budget: int, *, prefill_tokens: float, decode_tokens: float) -> TokenRegion:
    """Where every discipline is unstable above, and work-conserving ones are stable below.

    Parameters
    ----------
    law : IterationLaw
        Of the number of tokens only: an affine law with equal prices of prompt and decode tokens, `Hinge` or `Staircase`.
    budget : int >= 1
        B, tokens per batch.
    prefill_tokens, decode_tokens : float
        m_p and m_d: means per request.

    Examples
    --------
    The paper's fit for CodeLlama-34B: 11.28 ms + 35.47 ms per started 128 tokens.

    >>> from stability.model.iteration import Staircase
    >>> law = Staircase(base_s=11.28e-3, per_step_s=35.47e-3, step_tokens=128)
    >>> found = token_region(law, 512, prefill_tokens=100, decode_tokens=100)
    >>> round(found.batch_s * 1e3, 2), round(found.tokens_per_s / 1e3, 4), round(found.rate_per_s, 2)
    (153.16, 3.3429, 16.71)
    """
    times = batch_times_s(law, budget)
    speed = np.arange(1, budget + 1) / times[1:]
    best = len(speed) - 1 - int(np.argmax(speed[::-1]))
    tokens = check_number("prefill_tokens", prefill_tokens, above=0) + check_number(
        "decode_tokens", decode_tokens, at_least=0
    )
    return TokenRegion(
        batch_s=float(times[-1]),
        tokens_per_s=float(speed[best]),
        best_batch=best + 1,
        rate_per_s=float(speed[best]) / tokens,
    )


def backlog_bound_tokens(budget: int, prefill_tokens: int, decode_tokens: int) -> int:
    """(B + 1)(v_p + v_d): tokens waiting at most, for deterministic arrivals within the region. **Proved**."""
    return (budget + 1) * (prefill_tokens + decode_tokens)


def decode_first_rate(law: IterationLaw, budget: int, *, prefill_tokens: int, decode_tokens: int) -> float:
    """Capacity of decode-only batches while any decode is pending, requests/s. **Exact** for constant lengths.

    With a queue it serves in rounds: `n = floor(B/v_p)` whole prompts in one batch, then v_d batches of their n decodes. A prompt
    beyond B is computed alone, in chunks: n = 1.

    Parameters
    ----------
    law : IterationLaw
    budget : int
        B.
    prefill_tokens, decode_tokens : int
        v_p and v_d of every request.

    Examples
    --------
    >>> from stability.model.iteration import Staircase
    >>> law = Staircase(base_s=11.28e-3, per_step_s=35.47e-3, step_tokens=128)
    >>> round(decode_first_rate(law, 512, prefill_tokens=100, decode_tokens=100), 2)  # 5/(153.16 + 100*46.75) ms
    1.04
    """
    times = batch_times_s(law, budget)
    if check_integer("prefill_tokens", prefill_tokens, at_least=1) > budget:
        chunks, rest = divmod(prefill_tokens, budget)
        return 1 / float(chunks * times[budget] + (times[rest] if rest else 0.0) + decode_tokens * times[1])
    whole = _whole_prompts(budget, prefill_tokens)
    return whole / float(times[whole * prefill_tokens] + decode_tokens * times[whole])


def prefill_first_rates(
    law: IterationLaw, budget: int, *, prefill_tokens: int, decode_tokens: int
) -> tuple[float, float]:
    """Rates below which prefill-first in whole prompts is stable and above which it is not, requests/s, for constant lengths.

    Decodes run in batches of up to B in the time that prefills leave. A prompt takes between `t(n v_p)/n`, n = floor(B/v_p)
    prompts at a time, and t(v_p) alone: **sufficient** and **necessary** by the worse and the better of them (fluid argument).

    Parameters
    ----------
    law : IterationLaw
    budget : int
        B; the prompt must fit.
    prefill_tokens, decode_tokens : int
        v_p and v_d of every request.
    """
    whole = _whole_prompts(budget, prefill_tokens)
    times = batch_times_s(law, budget)
    counts = np.arange(1, whole + 1)
    each = times[counts * prefill_tokens] / counts
    decode = decode_tokens * float((times[1:] / np.arange(1, budget + 1)).min())
    full = decode_tokens * float(times[-1]) / budget
    return 1 / (float(each.max()) + full), 1 / (float(each.min()) + decode)


def _whole_prompts(budget: int, prefill_tokens: int) -> int:
    whole = math.floor(budget / check_integer("prefill_tokens", prefill_tokens, at_least=1))
    if whole < 1:
        raise InputError(
            f"prefill_tokens = {prefill_tokens}, must be <= the budget {budget}: a discipline without chunks would freeze. "
            "Raise the budget."
        )
    return whole
