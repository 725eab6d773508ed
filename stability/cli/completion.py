"""`stability completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .output import Command, print_text

VARIABLE = "_STABILITY_COMPLETE"
"""Where click looks for what to complete; it is derived from the program's name."""


@click.command(
    cls=Command,
    examples=(
        ("stability completion bash > ~/.stability-complete", "then `source` that file in .bashrc"),
        ("stability completion zsh > ~/.stability-complete", "then `source` that file in .zshrc"),
        ("stability completion fish > ~/.config/fish/completions/stability.fish", "fish finds it there"),
    ),
    exit_codes="0, or 2 for an unknown SHELL.",
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> int:
    """Print the script that completes commands, options, GPUs, models, examples and files in SHELL."""
    from .main import cli

    known = get_completion_class(shell)
    assert known is not None
    print_text(known(cli, {}, "stability", VARIABLE).source().rstrip())
    return 0
