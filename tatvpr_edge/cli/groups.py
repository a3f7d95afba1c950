"""A group of commands whose help can be read: whole sentences, in the order in which one works."""

from __future__ import annotations

import click

#: Longer than any first sentence of ours; click's own limit cuts them in the middle.
_LETTERS = 200


class Group(click.Group):
    """As click's, but its help names the commands as they stand in the file, each with its whole
    first sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of their definition."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, f"{command.get_short_help_str(_LETTERS).rstrip('.')}.")
                    for name, command in self.commands.items()
                ]
            )
