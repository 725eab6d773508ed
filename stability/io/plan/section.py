"""What all sections of a plan have in common, and the numbers with units in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from ... import units
from ...errors import InputError


class Section(BaseModel):
    """A mapping of a plan: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=False)

    bare: ClassVar[str] = ""
    """The key that a value stands for which is not a mapping."""
    one_of: ClassVar[tuple[str, ...]] = ()
    """Keys of which exactly one must be given."""
    hints: ClassVar[dict[str, str]] = {}
    """Ways out where the meaning of a key does not suggest one."""

    @classmethod
    def keys(cls) -> list[str]:
        """The known keys, as files spell them."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    def given(self) -> dict[str, Any]:
        """The keys that have a value, with it."""
        return {name: value for name, value in self if value is not None}

    @model_validator(mode="before")
    @classmethod
    def _expand_bare(cls, value: object) -> object:
        return {cls.bare: value} if cls.bare and value is not None and not isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check_one_of(self) -> Section:
        chosen = [name for name in self.one_of if getattr(self, name) is not None]
        if self.one_of and len(chosen) != 1:
            has = f"the keys {' and '.join(chosen)}" if chosen else "no key that says what it is"
            raise InputError(f"{has}, must have exactly one of {', '.join(self.one_of)}. Keep or add one.")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        written = handler.resolve_ref_schema(handler(schema))
        if cls.one_of:
            written["oneOf"] = [{"required": [name]} for name in cls.one_of]
        if not cls.bare:
            return written
        title, about = written.pop("title"), written.pop("description", "")
        short = {k: v for k, v in written["properties"][cls.bare].items() if k not in ("default", "title")}
        return {"title": title, "description": about, "anyOf": [short, written]}


@dataclass(frozen=True)
class Human:
    """A number that may be written with a unit; inside it is in SI.

    Parameters
    ----------
    parse : callable (name, value) -> number
        A function of `stability.units`.
    example : str
        What it may look like.
    """

    parse: Callable[[str, object], float]
    example: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(partial(self.parse, ""), handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "string", "examples": [self.example]}]}


COUNT, TOKENS = Human(units.count, "256"), Human(units.tokens, "12k")
Count = Annotated[int, Field(ge=1, le=10**9), COUNT]
CountOrNone = Annotated[int, Field(ge=0, le=10**9), COUNT]
Tokens = Annotated[int, Field(ge=1, le=2**31), TOKENS]
TokensOrNone = Annotated[int, Field(ge=0, le=2**31), TOKENS]
KvTokens = Annotated[int, Field(ge=1, le=10**15), TOKENS]
TIME = Human(units.seconds, "12 ms")
Time = Annotated[float, Field(ge=0), TIME]
PositiveTime = Annotated[float, Field(gt=0), TIME]
Milliseconds = Annotated[float, Field(ge=0), Human(partial(units.seconds, bare="ms"), "50 ms")]
PositiveMilliseconds = Annotated[float, Field(gt=0), Human(partial(units.seconds, bare="ms"), "50 ms")]
Bytes = Annotated[float, Field(ge=0), Human(units.size_bytes, "2 GiB")]
PositiveBytes = Annotated[float, Field(gt=0), Human(units.size_bytes, "128 KiB")]
Bandwidth = Annotated[float, Field(gt=0), Human(units.bandwidth, "25 GB/s")]
RATE = Human(units.rate, "600 req/min")
Rate = Annotated[float, Field(ge=0), RATE]
PositiveRate = Annotated[float, Field(gt=0), RATE]
Share = Annotated[float, Field(ge=0, lt=1), Human(units.share, "10%")]
PositiveShare = Annotated[float, Field(gt=0, le=1), Human(units.share, "90%")]
NUMBER = Human(units.number, "1.5")
Number = Annotated[float, NUMBER]
NonNegative = Annotated[float, Field(ge=0), NUMBER]
Positive = Annotated[float, Field(gt=0), NUMBER]
Text = Annotated[str, Field(min_length=1)]
