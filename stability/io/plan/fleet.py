"""The `fleet` and the `links` of a plan."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, StrictBool

from ...errors import InputError
from ...model.engine import Engine
from ...model.fleet import Barrier, Fleet, Link, Pool
from ...model.iteration import IterationLaw
from ...model.replica import Replica
from .iteration import IterationSection
from .problems import Problems
from .section import (
    Bandwidth,
    Bytes,
    Count,
    KvTokens,
    Milliseconds,
    NonNegative,
    PositiveBytes,
    PositiveShare,
    Section,
    Share,
    Text,
    Time,
    Tokens,
)
from .source import Key

_CATALOG_ONLY = ("dtype", "kv_dtype", "gpu_memory_utilization", "activation_reserve")
"""Keys from which the catalog works out the KV cache."""


class EngineSection(Section):
    """Settings of the serving engine; vLLM's defaults."""

    max_num_seqs: Count | None = Field(default=None, description="the most requests resident at a time; 256 if omitted")
    max_num_batched_tokens: Tokens | None = Field(
        default=None, description="the most tokens computed in one iteration; 2048 if omitted"
    )
    admission: Literal["reserve", "prompt_gate", "chunk_gate"] | None = Field(
        default=None, description="when the head of the queue is admitted; prompt_gate if omitted"
    )
    watermark: Share | None = Field(
        default=None, description="the share of KV blocks kept free at admission; 0 if omitted"
    )
    block_size: Tokens | None = Field(default=None, description="tokens per KV block; 16 if omitted")
    prefix_caching: StrictBool | None = Field(default=None, description="whether KV blocks can be found again")

    def build(self) -> Engine:
        """The engine."""
        return Engine(**self.given())


class BarrierSection(Section):
    """Data-parallel workers in lock-step."""

    workers: Count = Field(ge=2, description="workers of one group")
    sync_ms: Milliseconds = Field(default=0.0, description="the time of the barrier itself, ms or with a unit")

    def build(self) -> Barrier:
        """The barrier."""
        return Barrier(self.workers, self.sync_ms)


class ReplicaSection(Section):
    """One replica: a GPU and a model of the catalog, or an explicit law and KV capacity."""

    named: ClassVar[str]
    """The key that names it."""
    gpu: Text | None = Field(default=None, description="a GPU that `stability catalog` lists")
    model: Text | None = Field(default=None, description="a model that `stability catalog` lists")
    tensor_parallel: Count = Field(default=1, description="GPUs that share each layer")
    pipeline_parallel: Count = Field(default=1, description="groups of GPUs that share the layers out")
    dtype: Text = Field(default="bf16", description="the type of the weights: bf16 (any 16-bit type), fp8 or fp4")
    kv_dtype: Text | None = Field(default=None, description="the type of the KV cache: bf16 or fp8; 16-bit if omitted")
    gpu_memory_utilization: PositiveShare = Field(
        default=0.9, description="the share of a GPU's memory the engine may use"
    )
    activation_reserve: Bytes | None = Field(
        default=None, description="memory kept for activations, per GPU, as in '2 GiB'"
    )
    kv_capacity_tokens: KvTokens | None = Field(default=None, description="the KV cache of a replica, tokens")
    kv_bytes_per_token: PositiveBytes | None = Field(
        default=None, description="KV bytes of a token over the replica's GPUs"
    )
    iteration: IterationSection | None = Field(default=None, description="a step-time law in place of the catalog's")
    engine: EngineSection = Field(default=EngineSection(), description="settings of the serving engine")
    price_per_hour: NonNegative | None = Field(
        default=None, description="the price of a replica, all of its GPUs together, in any currency"
    )

    @classmethod
    def keys(cls) -> list[str]:
        """The known keys, its name first."""
        return sorted(super().keys(), key=lambda name: name != cls.named)

    def replica(self, problems: Problems, key: Key) -> Replica | None:
        """The replica, or None after noting why there is none."""
        engine = problems.attempt((*key, "engine"), self.engine.build)
        law, section = None, self.iteration
        if section is not None:
            law = problems.attempt((*key, "iteration"), section.build)
        named = self._check_names(problems, key)
        if engine is None or (section is not None and law is None) or not named:
            return None
        return problems.attempt(key, lambda: self._replica(engine, law))

    def _check_names(self, problems: Problems, key: Key) -> bool:
        """Whether the catalog knows GPU and model, where both are asked of it."""
        if self.gpu is None or self.model is None:
            return True
        from ...model import catalog

        gpu = problems.attempt((*key, "gpu"), partial(catalog.gpu, self.gpu))
        model = problems.attempt((*key, "model"), partial(catalog.model, self.model))
        return gpu is not None and model is not None

    def _replica(self, engine: Engine, law: IterationLaw | None) -> Replica:
        if self.gpu is not None and self.model is not None:
            return self._from_catalog(self.gpu, self.model, engine, law)
        if law is None or self.kv_capacity_tokens is None:
            has = [
                name for name in ("gpu", "model", "iteration", "kv_capacity_tokens") if getattr(self, name) is not None
            ]
            raise InputError(
                f"only {', '.join(has) or 'none'} of what makes a replica is given, must be gpu and model, or iteration and "
                "kv_capacity_tokens. Add what is missing."
            )
        idle = [name for name in _CATALOG_ONLY if name in self.model_fields_set]
        if idle:
            raise InputError(
                f"{idle[0]} = {getattr(self, idle[0])!r}, must come with gpu and model, from which it sizes the KV cache. "
                "Remove it or name both."
            )
        return Replica(
            iteration=law,
            kv_capacity_tokens=self.kv_capacity_tokens,
            engine=engine,
            kv_bytes_per_token=self.kv_bytes_per_token,
            gpus=self.tensor_parallel * self.pipeline_parallel,
            gpu=self.gpu or "",
            model=self.model or "",
            price_per_hour=self.price_per_hour,
        )

    def _from_catalog(self, gpu: str, model: str, engine: Engine, law: IterationLaw | None) -> Replica:
        from ...model import catalog

        replica = catalog.replica(
            gpu,
            model,
            tensor_parallel=self.tensor_parallel,
            pipeline_parallel=self.pipeline_parallel,
            engine=engine,
            dtype=self.dtype,
            kv_dtype=self.kv_dtype,
            gpu_memory_utilization=self.gpu_memory_utilization,
            activation_reserve_bytes=self.activation_reserve,
            kv_capacity_tokens=self.kv_capacity_tokens,
            iteration=law,
            price_per_hour=self.price_per_hour,
        )
        if self.kv_bytes_per_token is not None:
            replica = replace(replica, kv_bytes_per_token=self.kv_bytes_per_token)
        return replica


class PoolSection(ReplicaSection):
    """Equal replicas: a GPU and a model of the catalog, or an explicit law and KV capacity."""

    named: ClassVar[str] = "pool"
    hints: ClassVar[dict[str, str]] = {"replicas": "Remove the pool or give it a replica."}
    pool: Text = Field(description="a name of its own")
    replicas: Count = Field(default=1, description="the number of replicas")
    role: Literal["mixed", "prefill", "decode"] = Field(default="mixed", description="what the pool computes")
    weight: NonNegative | None = Field(default=None, description="its share of the arrivals, up to a factor")
    barrier: BarrierSection | None = Field(default=None, description="workers in lock-step")

    def build(self, problems: Problems, key: Key) -> Pool | None:
        """The pool, or None after noting why there is none."""
        replica = self.replica(problems, key)
        return None if replica is None else problems.attempt(key, lambda: self._of(replica))

    def _of(self, replica: Replica) -> Pool:
        return Pool(
            self.pool,
            replica,
            self.replicas,
            role=self.role,
            coupling="independent" if self.barrier is None else self.barrier.build(),
            weight=self.weight,
        )


class LinkSection(Section):
    """A network between two pools."""

    source: Text = Field(description="the pool that sends")
    target: Text = Field(description="the pool that receives")
    bandwidth: Bandwidth = Field(description="the total bandwidth, as in '25 GB/s'")
    latency: Time = Field(default=0.0, description="the time added to each transfer, s or with a unit")

    def build(self) -> Link:
        """The link."""
        return Link(self.source, self.target, self.bandwidth, self.latency)


def build_fleet(pools: list[PoolSection], links: list[LinkSection], problems: Problems) -> Fleet | None:
    """The fleet, or None after noting why there is none."""
    built = [section.build(problems, ("fleet", index)) for index, section in enumerate(pools)]
    joined = [section.build() for section in links]
    kept = [pool for pool in built if pool is not None]
    if len(kept) < len(pools):
        return None
    return problems.attempt(("fleet",), lambda: Fleet(kept, joined))
