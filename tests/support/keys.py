"""SSH key pairs for tests of signatures."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

NAMES = ("ours", "second", "stranger")


@dataclass(frozen=True)
class Keys:
    """Key pairs by name, in one folder."""

    folder: Path

    def private(self, name: str) -> Path:
        """The file that signs."""
        return self.folder / name

    def public(self, name: str) -> str:
        """The line of the ``.pub`` file."""
        return (self.folder / f"{name}.pub").read_text()

    def bare(self, name: str) -> str:
        """``TYPE BASE64`` of the public key."""
        return " ".join(self.public(name).split()[:2])


def make_keys(folder: Path) -> Keys:
    """Ours, another of ours, and a stranger's."""
    for name in NAMES:
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name]
        subprocess.run(words, check=True)
    return Keys(folder)
