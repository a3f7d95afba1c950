"""One signature over everything of a release that runs: artifact, runtime, map, ``python`` script.

In: ``release.json`` (it holds the SHA-256 of every file) and ``release.sig``, as they were read.
Out: the signer's name, or SignatureError. Called by the board's half of deploy when it installs,
and by whoever starts a release; standard library and ``ssh-keygen``. The spirit is TUF's, without
its machinery: a serial against older lists, an expiry against withheld ones, the board that it is
for. Lists that need more (thresholds of keys, rotation) will name it in ``requires``, which readers
that do not know it refuse.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tatvpr_edge.spec.errors import DeployError, MapError, SignatureError

from . import deployed, signature, trust, whole
from .table import Table
from .trust import Trust

NAMESPACE = signature.RELEASE_NAMESPACE


def read_signature(folder: str | Path) -> bytes | None:
    """The bytes of a release's signature, opened and read once; None where it has none.

    Raises:
        DeployError: it is no plain file, or too large to be one.
    """
    path = os.path.join(folder, deployed.SIGNED)
    return whole.read_plain(path, deployed.SIGNED, 1 << 16) if os.path.lexists(path) else None


def check_list(data: bytes, made: bytes | None, trusted: Trust, name: str) -> tuple[str, Table]:
    """(signer's name, parsed list) of the release called ``name``.

    Args:
        data, made: its list and the signature of it, as they were read.
        trusted: the keys that decide.

    Raises:
        SignatureError: unsigned, by an unknown or revoked key, altered, or for another board.
        DeployError: what was signed is no list, or another release's.
    """
    if made is None:
        raise SignatureError(
            f"release {name} is unsigned (its runtime and map too), and this machine accepts "
            "signed releases only: deploy it with `tatvpr-edge deploy --sign KEY`"
        )
    signer = signature.check_signature(made, data, trusted, NAMESPACE, f"release {name}")
    table = whole.table_of(data, name)
    if table.stamp is None:
        raise SignatureError(f"release {name} is signed and has no serial: deploy it again")
    if trusted.board is not None and table.stamp.board != trusted.board:
        raise SignatureError(
            f"release {name} is for board {table.stamp.board}, this one accepts releases for "
            f"{trusted.board} only"
        )
    return signer, table


def check_installed(folder: str | Path, trusted: Trust) -> str:
    """The signer of the list of the release in ``folder``, whose files are checked elsewhere.

    Raises:
        SignatureError: as :func:`check_list`, or the list or its signature cannot be read.
    """
    try:
        data, made = whole.read_list(os.fspath(folder)), read_signature(folder)
        return check_list(data, made, trusted, os.path.basename(folder))[0]
    except DeployError as error:
        raise SignatureError(f"release {os.path.basename(folder)}: {error}") from None


def check_expiry(table: Table) -> None:
    """A list that is about to be installed has not expired. (What is installed goes on: a robot
    does not stop because its makers were late.)

    Raises:
        SignatureError: it has.
    """
    expires, now = table.stamp.expires if table.stamp else None, int(time.time())
    if expires is not None and now > expires:
        raise SignatureError(
            f"the release expired {(now - expires) / 86400:.1f} days ago by this board's clock: "
            "sign it again"
        )


def refuse_rewriting(place_map: Path) -> None:
    """A map of a signed release is not rewritten where signatures are enforced: that release would
    not start again. (Places are added beside it, in its journal.)

    Raises:
        MapError: ``place_map`` is one.
    """
    release = deployed.release_of(place_map)
    if release is not None and trust.find(release.parent.parent) is not None:
        raise MapError(
            f"{place_map} is part of a signed release, which would not start again if its map were "
            "rewritten: copy it elsewhere and give that as the map, or deploy a new one"
        )
