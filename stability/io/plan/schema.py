"""The JSON Schema of plan files, for editors and other programs."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from .document import PlanSection

IDENTIFIER = "plan-1.json"


class _Untitled(GenerateJsonSchema):
    """Without titles that repeat the keys."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002
        return False


def json_schema() -> dict[str, Any]:
    """The schema of `stability/plan/1`, generated from the sections; `plan-1.json` beside this file is a copy."""
    schema = PlanSection.model_json_schema(by_alias=True, schema_generator=_Untitled)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": IDENTIFIER,
        **schema,
        "title": "Plan of a serving fleet (stability/plan/1)",
    }
