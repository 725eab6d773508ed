"""The entry point: commands are found by name and imported when used; every outcome becomes an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from importlib import metadata

import click
from click.shell_completion import CompletionItem

from ..errors import StabilityError, unknown_name

COMMANDS = {
    "check": "Is the fleet of a plan stable, by how much, what binds, what to change?",
    "simulate": "The fleet of a plan simulated token by token.",
    "validate": "Theory against simulation of one plan.",
    "compare": "Two plans side by side.",
    "compare-routers": "One fleet under one router after another, simulated.",
    "compare-schedulers": "Published schedulers against the engine's own, on the same requests.",
    "ramp": "What a burst, a lost replica or the schedule does over time: backlog, recovery, when to shed.",
    "prefix": "What sessions find in the prefix cache, and whether a backlog can take it for good.",
    "tune": "The engine settings that serve the most, and the flags to paste.",
    "route": "How to split the arrivals of a plan over its pools.",
    "region": "Which rates a fleet can serve, and what more of anything is worth.",
    "size": "The cheapest fleet that serves a plan within its targets.",
    "sweep": "Many plans and seeds at once, in parallel and resumable.",
    "fit": "A step-time law, or lengths, from measurements, with what they leave uncertain.",
    "trace": "What a request trace says about its traffic.",
    "watch": "Load, headroom, verdict and time to overflow of a server, from its metrics.",
    "catalog": "Known GPUs, models, workloads and step-time laws.",
    "init": "A plan from a few questions.",
    "schema": "The JSON Schema of plan files, and example plans.",
    "explain": "What a term, a verdict, an exit code or an error means.",
    "completion": "Completion of commands and names for bash, zsh and fish.",
}
"""Commands and their one-line descriptions; each lives in the module of its name, with _ for -."""

BAD_INPUT, INTERNAL, INTERRUPTED = 2, 4, 130


class _Commands(click.Group):
    """Loads a command's module only when the command is used or its help asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f".{name}", __package__), name)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands by name, without importing any; options after a dash."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(str(unknown_name("command", args[0], COMMANDS)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001
    if not value:
        return
    try:
        version = metadata.version("llm-stability")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    click.echo(f"stability {version}")
    ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`stability check` runs a bundled example. `stability COMMAND --help` has examples of each command.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Is an LLM serving fleet stable under its workload, by how much, what binds, and what to change?"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        code = cli.main(args=arguments, prog_name="stability", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return BAD_INPUT
    except click.UsageError as error:
        hint = f" See `{error.ctx.command_path} --help`." if error.ctx is not None else ""
        click.echo(f"error: {error.format_message()}{hint}", err=True)
        return BAD_INPUT
    except StabilityError as error:
        click.echo(f"error: {error}", err=True)
        return BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("STABILITY_TRACEBACK"):
            traceback.print_exc()
        click.echo(
            f"internal error: {type(error).__name__}: {error}. This is a defect; set STABILITY_TRACEBACK=1 to see where.",
            err=True,
        )
        return INTERNAL
    return code if isinstance(code, int) else 0
