"""Models: shapes, parameters and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..._result import Described
from ...errors import InputError, check_choice, check_integer
from .files import find, read_rows, split_names

WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp4": 0.5625}
"""Bytes of one weight: 16 bits (bfloat16 or float16), 8 bits, and 4 bits plus an 8-bit scale for every 16 weights."""

KV_BYTES = {"bf16": 2.0, "fp8": 1.0}
"""Bytes of one number in the KV cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Described):
    """The shape of a transformer. Build one to plan with a model the catalog lacks.

    Parameters
    ----------
    name : str
        Its name.
    layers, hidden : int >= 1
        Layers and width.
    query_heads, kv_heads, head_dim : int >= 1
        Attention heads, heads of the KV cache and their size.
    vocabulary : int >= 1
        Tokens of the vocabulary.
    ffn : int >= 1
        Inner width of a dense feed-forward layer.
    parameters, active_parameters : int >= 1
        All parameters, and those one token uses.
    experts, experts_per_token : int >= 0
        Routed experts of a mixture and how many one token visits; 0 for dense models.
    mla_latent : int >= 0
        Numbers per token and layer of a latent KV cache (multi-head latent attention); 0 for ordinary attention.
    tied_embeddings : bool
        Whether the output projection is the input embedding.
    aliases : tuple of str
        Other spellings, and models of the same shape.
    source : str
        Where the numbers come from.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    See :func:`stability.catalog.model`.
    """

    name: str
    layers: int
    hidden: int
    query_heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    ffn: int
    parameters: int
    active_parameters: int
    experts: int = 0
    experts_per_token: int = 0
    mla_latent: int = 0
    tied_embeddings: bool = False
    aliases: tuple[str, ...] = ()
    source: str = "given by the user"

    def __post_init__(self) -> None:
        positive = ("layers", "hidden", "query_heads", "kv_heads", "head_dim", "vocabulary", "ffn", "parameters")
        for field in positive:
            check_integer(field, getattr(self, field), at_least=1)
        for field in ("experts", "experts_per_token", "mla_latent"):
            check_integer(field, getattr(self, field), at_least=0)
        check_integer("active_parameters", self.active_parameters, at_least=1, at_most=self.parameters)
        if self.experts_per_token > self.experts:
            raise InputError(
                f"experts_per_token = {self.experts_per_token}, must be <= experts = {self.experts}. Correct the model."
            )

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding and the output projection; they stay 16-bit in quantised checkpoints."""
        return self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)

    @property
    def expert_parameters(self) -> float:
        """Parameters of all routed experts: `(total - active)/(1 - share)`, since a token leaves out 1 - share of them."""
        if not self.experts:
            return 0.0
        return (self.parameters - self.active_parameters) / (1 - self.experts_per_token / self.experts)

    def weight_bytes(self, dtype: str = "bf16") -> float:
        """Bytes of all weights of `dtype` ("bf16", "fp8", "fp4"), embeddings at 16 bits."""
        check_choice("dtype", dtype, WEIGHT_BYTES)
        embedding = self.embedding_parameters
        return WEIGHT_BYTES[dtype] * (self.parameters - embedding) + WEIGHT_BYTES["bf16"] * embedding

    def kv_bytes_per_token(self, kv_dtype: str = "bf16", *, tensor_parallel: int = 1) -> float:
        """KV bytes of one token on one GPU, all layers.

        Heads are split over the tensor-parallel GPUs, and replicated once there are more GPUs than heads; the latent of
        multi-head latent attention is on every GPU whole. Sliding windows are not modelled: each layer keeps all tokens.

        Parameters
        ----------
        kv_dtype : str
            Type of the cache, "bf16" or "fp8".
        tensor_parallel : int >= 1
            GPUs of the tensor-parallel group.
        """
        check_choice("kv_dtype", kv_dtype, KV_BYTES)
        heads = max(1, -(-self.kv_heads // tensor_parallel))
        numbers = self.mla_latent or 2 * heads * self.head_dim
        return self.layers * numbers * KV_BYTES[kv_dtype]


@cache
def models() -> tuple[Model, ...]:
    """Every model of the catalog, smallest first."""
    texts = ("name", "aliases", "source", "tied_embeddings")
    return tuple(
        Model(
            name=row["name"],
            aliases=split_names(row["aliases"]),
            source=row["source"],
            tied_embeddings=row["tied_embeddings"] == "1",
            **{field: int(value) for field, value in row.items() if field not in texts},
        )
        for row in read_rows("models.csv")
    )


def model(name: str | Model) -> Model:
    """The model of a name or alias, in any case; a `Model` is returned as it is.

    Parameters
    ----------
    name : str or Model
        Name or alias, with or without an organisation.

    Returns
    -------
    Model

    Raises
    ------
    UnknownNameError
        If the catalog has none; the message gives the nearest names.

    Examples
    --------
    >>> model("meta-llama/Llama-3.1-8B-Instruct").kv_bytes_per_token()
    131072.0
    """
    if isinstance(name, Model):
        return name
    if not isinstance(name, str):
        raise InputError(f"model = {name!r}, must be a name or a Model. Give a name such as 'Llama-3.1-8B'.")
    return find("model", name, models())
