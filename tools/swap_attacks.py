"""Three attacks on the moment between checking and running: does unsigned code ever run?

    python tools/swap_attacks.py [--rounds 1000] [--artifact DIR] [--check]

A process that may write to an artifact's folder exchanges files, as fast as it can, while
``Localizer`` opens that artifact again and again on a root that trusts one key:

manifest   the signed manifest against one that names another library (which lies there)
library    the signed library against another one, by rename
bytes      the bytes of the library, written into the same file

The other library leaves a mark when it is loaded. Each attack is also made on a reader that hashes
a file and then loads it by its name, until that one falls: the exchange does hit the moment.
``--check`` fails when a mark appears with ``Localizer``, or none with the other reader.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from given import one_line, tool_parser, whole

from tatvpr_edge import build
from tatvpr_edge.runtime import Localizer, deployed, trust
from tatvpr_edge.runtime.signature import signer_line
from tatvpr_edge.runtime.signing import sign_artifact
from tatvpr_edge.spec.artifact import MANIFEST, SIGNATURE, read_artifact, write_artifact
from tatvpr_edge.spec.errors import ArtifactError

ATTACKS = ("manifest", "library", "bytes")
_LOADED_CODE = """
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
  int mark = open("%s", O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (mark >= 0 && write(mark, "x", 1) == 1) close(mark);
}
"""


class Scene:
    """A signed artifact on a root that trusts its key, and what the attacker puts in its place."""

    def __init__(self, folder: Path, artifact: Path | None) -> None:
        self.folder = folder
        self.mark = folder / "mark"
        self.place = folder / "artifact"
        made = read_artifact(artifact if artifact else build("host", output=folder / "built"))
        members = {entry.path: made.read(entry.path) for entry in made.manifest.files}
        write_artifact(self.place, made.manifest, members)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True
        )
        sign_artifact(self.place, folder / "key", serial=1)
        root = folder / "root"
        trust.signers_path(root).parent.mkdir(parents=True)
        line = signer_line("ours", (folder / "key.pub").read_text())
        trust.signers_path(root).write_text(line)
        trust.revoked_path(root).write_bytes(trust.sealed_list(()))
        os.environ[deployed.ROOT_VARIABLE] = str(root)
        self.code = made.manifest.code.path
        self.good = members[self.code]
        self.other = self._other_library()
        # The attacker's artifact differs in its library alone; nobody signed it.
        changed = {**members, self.code: self.other}
        write_artifact(folder / "other", dataclasses.replace(made.manifest, serial=1), changed)
        self.manifests = [
            (place / MANIFEST).read_bytes() for place in (self.place, folder / "other")
        ]
        self.signature = (self.place / SIGNATURE).read_bytes()

    def _other_library(self) -> bytes:
        source, library = self.folder / "other.c", self.folder / "other.so"
        source.write_text(_LOADED_CODE % self.mark)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
        return library.read_bytes()

    def marks(self) -> int:
        """How often the other library was loaded."""
        return self.mark.stat().st_size if self.mark.exists() else 0

    def replace(self, name: str, data: bytes) -> None:
        """Put a new file at ``name`` by rename."""
        temporary = self.folder / "exchange"
        temporary.write_bytes(data)
        os.replace(temporary, self.place / name)

    def attack(self, kind: str, turn: int) -> None:
        """One exchange: the other one's in even turns, the good one in odd ones."""
        if kind == "manifest":
            self.replace(MANIFEST, self.manifests[1 - turn % 2])
        elif kind == "library":
            self.replace(self.code, (self.other, self.good)[turn % 2])
        else:
            with open(self.place / self.code, "r+b") as sink:
                sink.write((self.other, self.good)[turn % 2])
                sink.truncate()

    def settle(self, kind: str) -> None:
        """Everything good again, but what the attack needs to lie there."""
        self.replace(MANIFEST, self.manifests[0])
        self.replace(self.code, self.other if kind == "manifest" else self.good)


def exchange(scene: Scene, kind: str) -> None:
    """The attacker: exchanges until its parent ends it."""
    turn = 0
    while True:
        with contextlib.suppress(OSError):
            scene.attack(kind, turn)
        turn += 1
        time.sleep(0.0005)


def open_it(scene: Scene) -> None:
    """The reader under test."""
    with Localizer(scene.place):
        pass


def open_by_name(scene: Scene) -> None:
    """A reader that checks first and opens again afterwards; in a child, because it may crash."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(ArtifactError, OSError, ValueError, KeyError):
            _open_by_name(scene)
        os._exit(0)
    os.waitpid(child, 0)


def _open_by_name(scene: Scene) -> None:
    listed = {e["path"]: e["sha256"] for e in json.loads(_read(scene.place / MANIFEST))["files"]}
    time.sleep(0.003)  # ssh-keygen takes longer
    if _read(scene.place / MANIFEST) != scene.manifests[0]:
        raise ArtifactError("the signature is of another manifest")
    if hashlib.sha256(_read(scene.place / scene.code)).hexdigest() != listed[scene.code]:
        raise ArtifactError("altered")
    time.sleep(0.003)
    ctypes.CDLL(str(scene.place / scene.code))


def _read(path: Path) -> bytes:
    return path.read_bytes()


def tried(
    scene: Scene, kind: str, rounds: int, reader: Callable[[Scene], None], first: bool = False
) -> tuple[int, int, int]:
    """(marks, times the reader opened something, tries) in ``rounds`` tries under attack, with
    ``first`` only until the first mark."""
    scene.settle(kind)
    before, opened, tries = scene.marks(), 0, 0
    attacker = multiprocessing.get_context("fork").Process(target=exchange, args=(scene, kind))
    attacker.start()
    try:
        for _ in range(rounds):
            if first and scene.marks() > before:
                break
            tries += 1
            with contextlib.suppress(ArtifactError, OSError):
                reader(scene)
                opened += 1
    finally:
        attacker.kill()
        attacker.join()
    return scene.marks() - before, opened, tries


@one_line
def main() -> int:
    """Exit status 1 where ``--check`` fails."""
    parser = tool_parser(__doc__)
    parser.add_argument("--rounds", type=whole(1), default=1000)
    parser.add_argument("--artifact", type=Path, help="whose copy is attacked (default: micro)")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("gcc") is None:
        sys.exit("error: gcc is missing: apt-get install gcc")
    good = True
    with tempfile.TemporaryDirectory(prefix="swap-attacks-") as name:
        scene = Scene(Path(name), arguments.artifact)
        for kind in ATTACKS:
            marks, opened, _ = tried(scene, kind, arguments.rounds, open_it)
            fell, _, tries = tried(scene, kind, 5000, open_by_name, first=True)
            good = good and marks == 0 and fell > 0
            print(
                f"{kind}: unsigned code ran {marks} of {arguments.rounds} times (opened whole "
                f"{opened} times); a reader that opens again by name "
                + (f"fell in try {tries}" if fell else f"stood {tries} tries: prove it again"),
                flush=True,
            )
    return 0 if good or not arguments.check else 1


if __name__ == "__main__":
    sys.exit(main())
