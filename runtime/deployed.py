"""Where a deployed release lies on a board, and which one is live.

In: the install root. Out: paths. Called by ``Localizer``, by the service and by the board's half of
``tatvpr-edge deploy``; needs the standard library only. The layout::

    ROOT/current -> releases/ID       the live release; switched by one atomic rename
    ROOT/releases/ID/release.json     every file of the release with size and SHA-256
    ROOT/releases/ID/release.sig      signature of release.json, where it was signed
    ROOT/releases/ID/artifact/        the artifact: manifest.json, manifest.sig, code, weights
    ROOT/releases/ID/map.placemap     the place map, if one was deployed
    ROOT/releases/ID/runtime/         the package tatvpr_edge (runtime part), if it travelled along
    ROOT/releases/ID/python           runs Python with that package
    ROOT/releases/ID/start            says whether that package is whole, or which one is
    ROOT/staging/ID/                  a release being assembled
    ROOT/trash/                       releases being removed
    ROOT/enforced                     the mark that this root accepts signed artifacts only
    ROOT/trust/allowed_signers        keys whose artifacts are accepted (OpenSSH's format)
    ROOT/trust/revoked_keys           keys that are refused (OpenSSH's format)
    ROOT/state.json                   order of releases, unconfirmed switch, lowest serial accepted
    ROOT/lock                         held (flock) while a deploy runs
    ROOT/spare                        room on the disk, for a rollback on a full one
    ROOT/fallback.json                the live release is damaged, and which one was started instead
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tatvpr_edge.spec.manifest import MANIFEST, SIGNATURE
from tatvpr_edge.spec.text import parse_json

CURRENT = "current"
RELEASES = "releases"
STAGING = "staging"
TRASH = "trash"
TRUST = "trust"
ENFORCED = "enforced"
ALLOWED_SIGNERS = "allowed_signers"
REVOKED_KEYS = "revoked_keys"
STATE = "state.json"
LOCK = "lock"
SPARE = "spare"
FALLBACK = "fallback.json"
RELEASE = "release.json"
SIGNED = "release.sig"
ARTIFACT = "artifact"
MAP = "map.placemap"
RUNTIME = "runtime"
PYTHON = "python"
START = "start"
#: What ``start`` ends with where no runtime may run: not to be taken for one of Python's own exit
#: statuses, where it rotted itself.
REFUSED = 3

_MOST_JSON = 16 << 20

#: Names the install root where it is neither given nor found from the running package.
ROOT_VARIABLE = "TATVPR_EDGE_ROOT"
DEFAULT_ROOT = "~/.local/share/tatvpr-edge"


@dataclass(frozen=True)
class Deployed:
    """A release on this machine. ``folder`` has its links resolved, so that it stays one release
    even when ``current`` is switched meanwhile."""

    folder: Path
    artifact: Path
    map: Path | None


def install_root(root: str | Path | None = None) -> Path:
    """The install root: ``root``, else $TATVPR_EDGE_ROOT, else the root of the release that this
    very package is part of, else ``~/.local/share/tatvpr-edge``. It need not exist."""
    if root is not None:
        return Path(os.path.expanduser(root))
    if os.environ.get(ROOT_VARIABLE):
        return Path(os.path.expanduser(os.environ[ROOT_VARIABLE]))
    # .../ROOT/releases/ID/runtime/tatvpr_edge/runtime/deployed.py
    here = Path(os.path.realpath(__file__)) if "__file__" in globals() else Path("/")
    parents = here.parents
    if len(parents) > 5 and parents[4].name == RELEASES and (parents[3] / RELEASE).is_file():
        return parents[5]
    return Path(os.path.expanduser(DEFAULT_ROOT))


def live_release(root: str | Path | None = None) -> Deployed | None:
    """The live release below the install root, or None where nothing is deployed. One that lost its
    artifact, or all of itself, is damaged: the one before it may be started (:func:`fallback`)."""
    place = install_root(root)
    try:
        folder = (place / CURRENT).resolve()
        ours = folder.parent == (place / RELEASES).resolve()
    except (OSError, RuntimeError):  # a loop, or a folder that may not be looked into
        return None
    return _release(folder) if ours or os.path.isdir(folder / ARTIFACT) else None


def _release(folder: Path) -> Deployed:
    place_map = folder / MAP
    # Path's own is_file raises in a folder that may not be looked into.
    return Deployed(folder, folder / ARTIFACT, place_map if os.path.isfile(place_map) else None)


def release_of(place_map: str | Path) -> Path | None:
    """The folder of the release that the map at ``place_map`` is a part of; None: of none."""
    release = Path(os.path.realpath(place_map)).parent
    is_one = release.parent.name == RELEASES and os.path.isfile(release / RELEASE)
    return release if is_one else None


def before(state: dict[str, Any], live: str | None, installed: Collection[str]) -> str | None:
    """The release that was live before ``live`` and is still installed, by ``state``'s order."""
    history = state.get("history")
    for name in reversed(history if isinstance(history, list) else []):
        if isinstance(name, str) and name != live and name in installed:
            return name
    return None


def fallback(root: Path, live: Deployed) -> Deployed | None:
    """What is started where ``live`` is damaged: the release recorded as previous. None while a
    deploy has yet to confirm ``live``, which is to show by itself whether it works; one that died
    meanwhile, as in a power cut, will not."""
    state = read_state(root)
    watched = state.get("pending") and _deploys(root)
    if watched or live.folder.parent != (root / RELEASES).resolve():
        return None
    try:
        installed = os.listdir(root / RELEASES)
    except OSError:
        return None
    name = before(state, live.folder.name, installed)
    return None if name is None else _release(live.folder.parent / name)


def _deploys(root: Path) -> bool:
    """Whether a deploy is running, as far as this user can tell."""
    try:
        lock = os.open(root / LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)  # also of a child forked at this moment
        os.close(lock)
    return False


def stays(root: Path) -> set[Path]:
    """Folders of artifacts that no serial judges: of the live release and of the one before it,
    which were judged when they were installed (a rollback is meant)."""
    live = live_release(root)
    if live is None:
        return set()
    previous = fallback(root, live)
    return {live.artifact} if previous is None else {live.artifact, previous.artifact}


def read_state(root: Path) -> dict[str, Any]:
    """``state.json`` as it is; ``{}`` where it is missing or damaged."""
    return read_json(root / STATE)


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object; ``{}`` where it is missing, damaged, or none that ends (a pipe, a
    device)."""
    try:
        with open(path, "rb", opener=_unwaited) as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                return {}
            found = parse_json(source.read(_MOST_JSON))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _unwaited(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def lowest_serial(root: Path) -> int:
    """The lowest serial that this machine still accepts: the largest of what ``state.json`` says
    and of what is installed and was confirmed, so that a lost state lets nothing older in."""
    return _lowest(root, "floor", f"{ARTIFACT}/{MANIFEST}", f"{ARTIFACT}/{SIGNATURE}")


def lowest_release(root: Path) -> int:
    """:func:`lowest_serial` of the lists of releases, which have serials of their own."""
    return _lowest(root, "release_floor", RELEASE, SIGNED)


def _lowest(root: Path, key: str, document: str, signature: str) -> int:
    state = read_state(root)
    found, failed, pending = [state.get(key)], state.get("failed"), state.get("pending")
    with contextlib.suppress(OSError):
        for name in os.listdir(root / RELEASES):
            if isinstance(failed, dict) and name in failed:
                continue
            if isinstance(pending, dict) and name == pending.get("release"):
                continue
            if (root / RELEASES / name / signature).is_file():
                found.append(read_json(root / RELEASES / name / document).get("serial"))
    return max([0, *(serial for serial in found if type(serial) is int)])
