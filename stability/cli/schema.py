"""`stability schema`."""

from __future__ import annotations

import click

from .output import print_json


@click.command()
def schema() -> int:
    r"""The JSON Schema of plan files, for editors and CI.

    \b
    Example:
      stability schema > plan-1.json
    """
    from ..io.plan import json_schema

    print_json(json_schema())
    return 0
