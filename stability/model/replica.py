"""One replica: a step-time law, a KV cache and an engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._result import Described
from ..errors import InputError, check_integer, check_number
from .engine import Engine
from .iteration import IterationLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica(Described):
    """One copy of a model on its GPUs.

    Parameters
    ----------
    iteration : IterationLaw
        Time of one iteration.
    kv_capacity_tokens : int >= block_size
        KV cache, tokens (M).
    engine : Engine
        Scheduler settings.
    kv_bytes_per_token : float > 0, optional
        KV bytes of one token, summed over the replica's GPUs; needed for links and for prices per GB.
    gpus : int >= 1
        GPUs it occupies.
    gpu, model : str
        Names for reports.
    price_per_hour : float >= 0, optional
        Price of the whole replica, in any currency.
    notes : tuple of str
        Where the numbers came from, for reports.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000)
    >>> replica.capacity_blocks, replica.usable_kv_tokens  # 62 blocks of 16 tokens
    (62, 992)
    """

    iteration: IterationLaw
    kv_capacity_tokens: int
    engine: Engine = field(default_factory=Engine)
    kv_bytes_per_token: float | None = None
    gpus: int = 1
    gpu: str = ""
    model: str = ""
    price_per_hour: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.iteration, IterationLaw):
            raise InputError(
                f"iteration = {self.iteration!r}, must be a step-time law. Use IterationTime(...) or a law of stability.iteration."
            )
        if not isinstance(self.engine, Engine):
            raise InputError(f"engine = {self.engine!r}, must be an Engine. Use Engine(...).")
        object.__setattr__(self, "gpus", check_integer("gpus", self.gpus, at_least=1))
        capacity = check_integer(
            "kv_capacity_tokens",
            self.kv_capacity_tokens,
            at_least=self.engine.block_size,
            hint="The KV cache must hold at least one block.",
        )
        object.__setattr__(self, "kv_capacity_tokens", capacity)
        if self.kv_bytes_per_token is not None:
            check_number("kv_bytes_per_token", self.kv_bytes_per_token, above=0)
        if self.price_per_hour is not None:
            check_number("price_per_hour", self.price_per_hour, at_least=0)
        if self.engine.watermark_blocks(capacity) >= self.engine.capacity_blocks(capacity):
            raise InputError(
                f"watermark = {self.engine.watermark} keeps every block of {capacity} tokens free, must leave some. Lower the watermark."
            )

    @property
    def capacity_blocks(self) -> int:
        """Whole KV blocks."""
        return self.engine.capacity_blocks(self.kv_capacity_tokens)

    @property
    def usable_kv_tokens(self) -> int:
        """KV tokens in whole blocks."""
        return self.capacity_blocks * self.engine.block_size

    @property
    def watermark_tokens(self) -> int:
        """KV tokens kept free at admission (h)."""
        return self.engine.watermark_blocks(self.kv_capacity_tokens) * self.engine.block_size
