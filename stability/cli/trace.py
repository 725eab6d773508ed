"""`stability trace`."""

from __future__ import annotations

import click

from .output import Command, json_option, print_json, print_text


@click.command(
    cls=Command,
    examples=(
        ("stability trace requests.csv", "rates, burstiness, lengths"),
        ("stability trace conversation_trace.jsonl.gz", "compressed, Mooncake's format"),
        ("stability trace requests.csv --sort --json", "rows out of order, for scripts"),
    ),
    exit_codes="0 the trace was read, 2 bad input.",
)
@click.argument("file", type=click.Path())
@click.option(
    "--format",
    "form",
    metavar="NAME",
    help="Format of the file, if not told by its first line: requests, azure, burstgpt, mooncake.",
)
@click.option("--sort", is_flag=True, help="Sort the requests by arrival.")
@json_option
def trace(file: str, form: str | None, sort: bool, as_json: bool) -> int:
    """Rows, rates, percentiles, burstiness and correlation of a request trace.

    FILE is CSV or JSON lines, plain, .gz or .zst. Recognised by their first line: this package's own columns
    (arrival_s,prompt_tokens,output_tokens), and the public formats of Azure, BurstGPT and Mooncake.
    """
    from ..io.traces import read_trace

    summary = read_trace(file, format=form, sort=sort).describe()
    if as_json:
        print_json(summary.to_dict())
    else:
        print_text(summary.summary())
    return 0
