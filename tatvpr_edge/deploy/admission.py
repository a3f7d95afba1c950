"""Whether a board lets a release in: whose it is, and how old.

Runs on the board as part of the agent (standard library only). In: a release's list and its
artifact's manifest, each with its signature, as they were read. Out: who signed, and the serials
that nothing may fall below once the release is confirmed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tatvpr_edge.runtime import deployed, signature, signed_release
from tatvpr_edge.runtime.table import Table
from tatvpr_edge.runtime.trust import Trust
from tatvpr_edge.runtime.whole import table_of
from tatvpr_edge.spec.artifact import SignedManifest
from tatvpr_edge.spec.errors import ArtifactError, SignatureError
from tatvpr_edge.spec.manifest import Manifest

#: Names of the same processor family in compilers' triples and in uname(2).
_SAME = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}


def machine() -> str:
    """The processor as the board's Python uses it: a system of 32 bits may run on a kernel of 64,
    as some of the Raspberry Pi do, and loads no library of 64."""
    name = os.uname().machine
    return f"32-bit ({name})" if name in _SAME and sys.maxsize < 2**32 else name


def check_processor(manifest: Manifest, machine: str) -> None:
    """The artifact's code is for this processor. Asked by the host before anything is sent, and by
    the board, which believes no host.

    Args:
        machine: what :func:`machine` says on the board.

    Raises:
        ArtifactError: it is for another.
    """
    wanted = manifest.code.triple.split("-")[0]
    if _SAME.get(wanted, wanted) != _SAME.get(machine, machine):
        raise ArtifactError(
            f"the artifact is for board {manifest.board} ({wanted}), this board is {machine}: "
            "build it with --board for this one"
        )


class Admission:
    """One release before the board's keys.

    Args:
        root: the install root.
        trusted: what is enforced there; None: everything is let in.
        older: the sender means an older one; the board has to permit that.
        name: of the release. What is live here and what was live before it were judged when they
            came: no serial and no expiry judges them again.
        judged: neither does it judge this one.

    Attributes:
        signer: who signed the list; None where nothing is enforced.
        serial, list_serial: of the artifact and of the list; 0 where nothing is enforced.
    """

    def __init__(
        self, root: str, trusted: Trust | None, older: bool, name: str, judged: bool = False
    ) -> None:
        self._root = Path(root)
        self._trusted = trusted
        self._older = older
        stays = {artifact.parent.name for artifact in deployed.stays(self._root)}
        # ".2" and so on is a repaired copy of the same release.
        self._judged = judged or any(n == name or n.startswith(name + ".") for n in stays)
        self.signer: str | None = None
        self.serial = self.list_serial = 0

    def check_list(self, data: bytes, made: bytes | None, name: str) -> Table:
        """The release's list, which names every file that runs.

        Raises:
            SignatureError: it is not let in.
            DeployError: it is damaged.
        """
        if self._trusted is None:
            return table_of(data, name)
        self.signer, table = signed_release.check_list(data, made, self._trusted, name)
        self.list_serial = table.stamp.serial if table.stamp is not None else 0
        if not self._judged:
            floor = deployed.lowest_release(self._root)
            self._check_serial(self.list_serial, floor, f"release {name}")
            signed_release.check_expiry(table)
        return table

    def check_artifact(self, signed: SignedManifest) -> None:
        """The artifact's own manifest; what ``read_artifact`` calls.

        Raises:
            SignatureError: it is not let in.
        """
        if self._trusted is None:
            return
        signature.check_trust(signed, self._trusted)
        self.serial = signature.manifest_serial(signed.manifest)
        if not self._judged:
            floor = deployed.lowest_serial(self._root)
            self._check_serial(self.serial, floor, str(signed.folder))

    def _check_serial(self, serial: int, floor: int, what: str) -> None:
        if serial < floor and self._older and self._trusted and not self._trusted.downgrades:
            raise SignatureError(
                f"{what} has serial {serial}, older than the installed {floor}, and this board "
                "permits no downgrade: use `tatvpr-edge rollback`, or permit it on the board with "
                "`tatvpr-edge keys downgrades --permit`"
            )
        signature.check_serial(serial, floor, what, self._older)
