"""Arguments and errors of the commands without click: what is wrong is one line, as everywhere."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tatvpr_edge.spec.endings import tell
from tatvpr_edge.spec.lines import empty_argument
from tatvpr_edge.spec.text import printable


class Parser(argparse.ArgumentParser):
    """As argparse's, without abbreviations and with errors of one line."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog=prog, allow_abbrev=False, **options)
        # As Python 3.14 has it: "-1.5,2" behind --pose is a position, not an option.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def add_settings(self) -> None:
        """--k, --tokens, --budget and --preset, for :func:`tatvpr_edge.runtime.serve.settings`."""
        add = self.add_argument
        add("--k", help="fraction kept, or auto (default: the artifact's)")
        add("--tokens", type=float, help="patch tokens kept (default: the artifact's)")
        add("--budget", help="with --k auto: 5W, 0.2J, 40ms, 70C or battery:2h")
        add("--preset", help="with --k auto: turbo or battery-saver")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str]
    ) -> argparse.Namespace:
        """As argparse does; an empty word is refused."""
        empty = empty_argument(args)
        if empty is not None:
            self.error(empty)
        return super().parse_args(args)

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        print(f"error: {' '.join(message.split())} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def refused(error: Exception) -> int:
    """Say why a command ends; its exit status."""
    tell(f"error: {printable(error)}")
    return 1
