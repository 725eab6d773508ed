r"""Mean demand of the turns of sessions, by what each of them finds in the prefix cache.

A turn finds the conversation as it stood j turns ago (lag j; j = 1 where turns come back to the replica of the last one), or only its
system prompt, or nothing. With f_j the chance of lag j, given j turns before, and q that of finding the system prompt, the mean demand
of a turn is linear in them:

.. math:: E[a] = q\,a^{S}_0 + (1-q)\,a^{0}_0 + \sum_j f_j\,(a^{H}_j - q\,a^{S}_j - (1-q)\,a^{0}_j),

where a_j are sums over turns with at least j before them: a^H finding the conversation, a^S the system prompt, a^0 nothing. The laws of
prompts are exact (convolutions); c, the tokens found, is whole blocks.

**Approximations**: c is taken as independent of what is computed behind it (it depends on it through its remainder in a block only, and
through the limit on a session's length); for j > 1 also the chance to stay within that limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._types import FloatArray, read_only
from ..model.lengths import Independent
from ..model.sessions import Sessions, Tabulated, convolve, dense, hazards, private_room, turn_laws
from .cached import behind
from .moments import N_DEMANDS, moments


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TurnDemand:
    """Demands of the turns of one kind of session; axis 0 is the distinct lengths of system prompts, axis 1 the lag j = 0..J.

    Attributes
    ----------
    weight : (groups, J + 1) ndarray
        Share of all turns that have at least j before them.
    alone, with_system, history : (groups, J + 1, 15) ndarray
        Demands a^0, a^S, a^H, each times its weight; history has none at j = 0.
    kept_tokens : (groups, J + 1) ndarray
        Whole blocks of conversation, without the system prompt, that turns with at least j after them leave behind, times weight.
    system_tokens : (groups,) ndarray
        Whole blocks of the system prompt.
    shares : (groups,) ndarray
        Share of the turns.
    prompts : tuple of (alone, with_system, history) laws of computed tokens, by group and lag
    """

    weight: FloatArray
    alone: FloatArray
    with_system: FloatArray
    history: FloatArray
    kept_tokens: FloatArray
    system_tokens: FloatArray
    shares: FloatArray
    prompts: tuple[tuple[tuple[FloatArray, FloatArray, FloatArray], ...], ...]

    def mean(self, found: FloatArray, system: FloatArray) -> FloatArray:
        """Mean demand of a turn.

        Parameters
        ----------
        found : (..., J) ndarray
            f_j: chance to find the conversation of lag j = 1..J, given as many turns before.
        system : (..., groups) ndarray
            q: chance to find the system prompt.

        Returns
        -------
        (..., 15) ndarray
        """
        q = system[..., None, None]
        base = q * self.with_system + (1 - q) * self.alone  # (..., groups, J + 1, 15)
        later = (found[..., None, :, None] * (self.history[:, 1:] - base[..., 1:, :])).sum(axis=-2)
        return np.asarray((base[..., 0, :] + later).sum(axis=-2))

    def computed(self, found: Sequence[float], system: Sequence[float]) -> FloatArray:
        """P(x = 0, 1, 2, ... prompt tokens are computed) of a turn."""
        pieces: list[tuple[float, FloatArray]] = []
        for group, q in zip(self.prompts, system, strict=True):
            for lag, (alone, with_system, history) in enumerate(group):
                sign = 1.0 if lag == 0 else -found[lag - 1]
                pieces += [(sign * (1 - q), alone), (sign * q, with_system)]
                if lag:
                    pieces.append((found[lag - 1], history))
        total = np.zeros(max(len(law) for _, law in pieces))
        for factor, law in pieces:
            total[: len(law)] += factor * law
        return np.maximum(total, 0.0)


@lru_cache(maxsize=64)
def turn_demand(
    sessions: Sessions, lags: int, budget: int, block_size: int, max_output_tokens: int | None = None
) -> TurnDemand:
    """The demands of the turns of `sessions`, for lags up to `lags`.

    Parameters
    ----------
    sessions : Sessions
    lags : int >= 1
        J.
    budget, block_size : int
        Of the engine, tokens.
    max_output_tokens : int, optional
        Output limit that reservation sets aside.
    """
    groups = _groups(sessions, lags, block_size)
    shape = (len(groups), lags + 1)
    weight, kept = np.zeros(shape), np.zeros(shape)
    alone, with_system, history = (np.zeros((*shape, N_DEMANDS)) for _ in range(3))
    prompts = []

    def of(law: FloatArray) -> FloatArray:
        if not law.sum() > 0:
            return np.zeros(N_DEMANDS)
        joint = Independent(Tabulated(law), sessions.output)
        return moments(joint, budget, block_size, max_output_tokens).mean

    for g, group in enumerate(groups):
        c = group.system // block_size * block_size
        laws = []
        for j in range(lags + 1):
            mass = float(group.prompts[j].sum())
            weight[g, j], kept[g, j] = mass, group.kept[j] - mass * c
            bare, rest = _shifted(group.prompts[j], group.system), _shifted(group.prompts[j], group.system - c)
            alone[g, j], with_system[g, j] = mass * of(bare), mass * behind(of(rest), c, c * c)
            new = np.zeros(1)
            if j and mass > 0:
                new = mass * group.computed[j]
                first, second = group.kept[j] / mass, group.kept_square[j] / mass
                history[g, j] = mass * behind(of(new), first, second)
            laws.append((bare, rest, new))
        prompts.append(tuple(laws))
    return TurnDemand(
        weight=read_only(weight),
        alone=read_only(alone),
        with_system=read_only(with_system),
        history=read_only(history),
        kept_tokens=read_only(kept),
        system_tokens=read_only(np.array([g.system // block_size * block_size for g in groups], dtype=np.float64)),
        shares=read_only(weight[:, 0].copy()),
        prompts=tuple(prompts),
    )


@lru_cache(maxsize=32)
def _groups(sessions: Sessions, lags: int, block_size: int) -> list[_Group]:
    return [_Group(sessions, system, share, lags, block_size) for system, share in sessions.system_groups]


class _Group:
    """Laws of the sessions with one length of system prompt, as shares of all turns.

    prompts[j]: law of the prompt without the system prompt, over turns with at least j before them; kept, kept_square: sums of c and c**2 over what
    a turn leaves whole in blocks, over turns with at least j after them; computed[j]: law of what is computed behind such a c, j turns later.
    """

    def __init__(self, sessions: Sessions, system: int, share: float, lags: int, block_size: int) -> None:
        self.system = system
        scale = share / sessions.turns_mean
        output, user = dense(sessions.output), dense(sessions.new_tokens)
        room = private_room(sessions, system)
        within = np.cumsum(user)
        laws = turn_laws(sessions, system)
        masses = [float(law.sum()) for law in laws]
        turns = list(hazards(sessions.turns))
        self.prompts = [np.zeros(room + 1) for _ in range(lags + 1)]
        self.kept, self.kept_square = np.zeros(lags + 1), np.zeros(lags + 1)
        residues = np.zeros((lags + 1, block_size))
        y = np.arange(room + len(output))  # prompt and output, without the system prompt
        whole = np.maximum((system + y - 1) // block_size * block_size, 0).astype(np.float64)
        reach = room - y
        fits = np.where(
            reach >= 0, within[np.clip(reach, 0, len(within) - 1)], 0.0
        )  # that the next prompt is within the limit
        for j in range(lags + 1):
            before = np.zeros(room + 1)  # prompts that another follows, j turns later
            for k, law in enumerate(laws):  # turn k + 1
                if k >= j:
                    self.prompts[j][: len(law)] += scale * law
                if j == 0:
                    before[: len(law)] += scale * law
                elif k + j < len(laws):
                    before[: len(law)] += scale * turns[k] * masses[k + j] / masses[k + 1] * law
            stays = convolve(before, output) * (fits if j else 1.0)
            self.kept[j], self.kept_square[j] = float(stays @ whole), float(stays @ whole**2)
            residues[j] = np.bincount((system + y - 1) % block_size, weights=stays, minlength=block_size)
        self.computed: list[FloatArray] = [np.zeros(1)]
        between = np.ones(1)
        for j in range(1, lags + 1):
            total = residues[j].sum()
            rest = residues[j] / total if total > 0 else np.eye(1, block_size)[0]
            last_token = np.concatenate(([0.0], rest))  # the last output token's KV was never stored
            self.computed.append(convolve(convolve(last_token, user), between)[: room + block_size + 2])
            between = convolve(between, convolve(user, output))[: room + 1]


def _shifted(law: FloatArray, tokens: int) -> FloatArray:
    return np.concatenate((np.zeros(tokens), law))
