"""The entry point: commands are found by name and imported when used; every outcome becomes an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

import click

from ..errors import StabilityError, unknown_name

COMMANDS = {
    "check": "Is the fleet of a plan stable, by how much, what binds, what to change?",
    "compare": "Two plans side by side.",
    "trace": "What a request trace says about its traffic.",
    "catalog": "Known GPUs, models, workloads and step-time laws.",
    "schema": "The JSON Schema of plan files.",
}
"""Commands and their one-line descriptions; each lives in the module of its name."""

BAD_INPUT, INTERNAL, INTERRUPTED = 2, 4, 130


class _Commands(click.Group):
    """Loads a command's module only when the command is used or its help asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f".{cmd_name}", __package__), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(str(unknown_name("command", args[0], COMMANDS)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llm-stability", prog_name="stability")
def cli() -> None:
    """Is an LLM serving fleet stable under its workload, by how much, what binds, and what to change?

    Without a plan, a bundled example runs: `stability check`.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        code = cli.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        return BAD_INPUT
    except StabilityError as error:
        click.echo(f"error: {error}", err=True)
        return BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("STABILITY_TRACEBACK"):
            traceback.print_exc()
        click.echo(
            f"internal error: {type(error).__name__}: {error}. This is a defect; set STABILITY_TRACEBACK=1 to see where.",
            err=True,
        )
        return INTERNAL
    return code if isinstance(code, int) else 0
