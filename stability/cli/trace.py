"""`stability trace`."""

from __future__ import annotations

import click

from .output import json_option, print_json


@click.command()
@click.argument("file", type=click.Path())
@click.option("--format", "form", help="Format of the file; detected from its header without it.")
@click.option("--sort", is_flag=True, help="Sort the requests by arrival.")
@json_option
def trace(file: str, form: str | None, sort: bool, as_json: bool) -> int:
    r"""Rows, rates, percentiles, burstiness and correlation of a request trace (CSV or JSON lines, .gz and .zst too).

    \b
    Example:
      stability trace azure_2023_conv.csv
    """
    from ..io.traces import read_trace

    summary = read_trace(file, format=form, sort=sort).describe()
    if as_json:
        print_json(summary.to_dict())
    else:
        click.echo(summary.summary())
    return 0
