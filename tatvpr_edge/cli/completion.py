"""``tatvpr-edge completion [SHELL]``: the shell completes commands, boards, models and maps."""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class

from tatvpr_edge.spec.errors import UsageError

PROGRAM, VARIABLE = "tatvpr-edge", "_TATVPR_EDGE_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", required=False, type=click.Choice(SHELLS))
def command(shell: str | None) -> None:
    """Print the completion script of SHELL (default: the one that $SHELL names).

    bash: add eval "$(tatvpr-edge completion bash)" to ~/.bashrc; zsh: the same in ~/.zshrc; fish:
    tatvpr-edge completion fish > ~/.config/fish/completions/tatvpr-edge.fish
    """
    from tatvpr_edge.cli.app import group

    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    made = get_completion_class(name) if name in SHELLS else None
    if made is None:
        raise UsageError(f"no completion for the shell {name!r}: name one of {', '.join(SHELLS)}")
    click.echo(made(group, {}, PROGRAM, VARIABLE).source())
