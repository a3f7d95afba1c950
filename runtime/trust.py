"""Whom this machine trusts: the lists of keys, and whether it insists on them.

In: the install root of whoever asks, and the machine's own folder. Out: :class:`Trust`, or None
where nothing is enforced. Standard library only; it travels with the board's half of deploy. Two
places hold the same files, and the machine's comes first, whatever root, HOME or user a program
has::

    /etc/tatvpr-edge/enforced                  the mark: from now on nothing unsigned is accepted
    /etc/tatvpr-edge/trust/allowed_signers     keys whose releases are accepted (OpenSSH's format)
    /etc/tatvpr-edge/trust/revoked_keys        keys that are refused (OpenSSH's format, sealed)
    ROOT/enforced, ROOT/trust/...              the same for one root, where /etc cannot be written

Everything fails closed. The mark or a list of signers, in whatever state, means that the place
enforces; a list that is empty, missing, damaged, a link, a pipe, or that others may write, means
that nothing is accepted. The list of revoked keys ends with a line that counts and hashes the rest,
because a list that lost its lines would let revoked keys in again; the mark is sealed for the same
reason.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tatvpr_edge.spec.errors import SignatureError
from tatvpr_edge.spec.manifest import seal
from tatvpr_edge.spec.text import parse_json

from . import deployed
from .private import NotPrivate, check_folder, owners, read_private

#: The machine's own folder, which only root can write.
SYSTEM = Path("/etc/tatvpr-edge")
_SEAL = re.compile(rb"# tatvpr-edge: (\d+) keys, sha256 ([0-9a-f]{64})\n\Z")


@dataclass(frozen=True)
class Trust:
    """What a place enforces.

    Attributes:
        base: the machine's folder, or one install root.
        signers: bytes of ``allowed_signers``; may be empty: then nothing is trusted.
        revoked: public keys (``TYPE BASE64``) that are refused.
        board: the board that releases must be for; None: any that runs here.
        downgrades: whether ``deploy --allow-downgrade`` may install something older.
    """

    base: Path
    signers: bytes
    revoked: tuple[str, ...]
    board: str | None = None
    downgrades: bool = False

    def lines(self) -> list[str]:
        """The lines of the list of signers, without comments."""
        text = self.signers.decode("utf-8", "surrogateescape")
        return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]

    @property
    def revoked_list(self) -> bytes:
        """The revoked keys as ``ssh-keygen -r`` reads them."""
        return sealed_list(self.revoked)


def mark_path(base: Path) -> Path:
    """The mark of a place."""
    return base / deployed.ENFORCED


def signers_path(base: Path) -> Path:
    """The list of signers of a place."""
    return base / deployed.TRUST / deployed.ALLOWED_SIGNERS


def revoked_path(base: Path) -> Path:
    """The list of revoked keys of a place."""
    return base / deployed.TRUST / deployed.REVOKED_KEYS


def find(root: str | Path, system: Path | None = None) -> Trust | None:
    """What holds for a program whose install root is ``root``: the machine's lists if the machine
    enforces, else the root's if the root does, else None (unsigned artifacts are accepted).

    Raises:
        SignatureError: a place enforces, and its lists cannot be believed; or the machine's is no
            folder (a root that is none enforces nothing: a HOME may be a file).
    """
    machine = SYSTEM if system is None else system
    if os.path.lexists(machine) and not os.path.isdir(machine):
        raise SignatureError(f"{machine} is not a folder: nothing is trusted until it is")
    for base in (machine, Path(root)):
        if enforced(base):
            return read(base)
    return None


def enforced(base: Path) -> bool:
    """Whether a place insists on signatures: its mark or its list of signers is there, as whatever.

    Raises:
        SignatureError: that cannot be seen.
    """
    if not _there(base, base) or not os.path.isdir(base):
        return False
    return _there(mark_path(base), base) or _there(signers_path(base), base)


def _there(path: Path, base: Path) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        if path == base:
            return False
        raise SignatureError(
            f"{base / deployed.TRUST} is not a folder: nothing is trusted"
        ) from None
    except OSError as error:
        own = "" if base == SYSTEM else f", or set {deployed.ROOT_VARIABLE} to a folder of its own"
        raise SignatureError(
            f"{path} cannot be read ({error.strerror}), so that it is not known whether unsigned "
            f"artifacts are accepted: let this user read it{own}"
        ) from None
    return True


def read(base: Path, renew: bool = False, new_list: bool = False) -> Trust:
    """The lists of a place that enforces.

    Args:
        renew: they are about to be written anew: a lost list of signers is empty, a damaged mark
            says nothing.
        new_list: neither is the old list of revoked keys wanted.

    Raises:
        SignatureError: one is missing, damaged, a link, a pipe, or others can write to it.
    """
    signers, mark = signers_path(base), mark_path(base)
    try:
        # Whoever owns the place may own its lists: a program may run as another user.
        allowed = owners(os.stat(base).st_uid)
        check_folder(os.path.realpath(base), allowed)
        check_folder(base / deployed.TRUST, allowed)
        lost = renew and not os.path.lexists(signers)
        names = b"" if lost else read_private(signers, allowed)
        revoked = sealed_list(()) if new_list else read_private(revoked_path(base), allowed)
        said: dict[str, Any] = {}
        if os.path.lexists(mark):
            said = _mark(read_private(mark, allowed), mark, renew)
    except NotPrivate as error:
        raise SignatureError(f"{error}: until then nothing is trusted") from None
    except FileNotFoundError as error:
        raise SignatureError(_lost(Path(error.filename))) from None
    except OSError as error:
        raise SignatureError(f"{error.filename or base} cannot be read: {error.strerror}") from None
    return Trust(base, names, _revoked(revoked, revoked_path(base)), **said)


def _lost(path: Path) -> str:
    remedy = "trust a key again with `tatvpr-edge keys trust`"
    if path.name == deployed.REVOKED_KEYS:
        remedy = "bring it back, or begin a new one with `tatvpr-edge keys revoke KEY --new-list`"
    return f"{path} is lost, and this machine accepts signed artifacts only: {remedy}"


def sealed_list(keys: tuple[str, ...]) -> bytes:
    """A list of revoked keys, with the line that seals it."""
    body = "".join(f"{key}\n" for key in keys).encode("ascii")
    digest = hashlib.sha256(body).hexdigest()
    return body + f"# tatvpr-edge: {len(keys)} keys, sha256 {digest}\n".encode("ascii")


def _revoked(data: bytes, path: Path) -> tuple[str, ...]:
    found = _SEAL.search(data)
    body = data[: found.start()] if found else b""
    keys = tuple(body.decode("ascii", "replace").splitlines())
    if found is None or sealed_list(keys) != data:
        raise SignatureError(
            f"{path} is damaged or was edited: bring it back, or begin a new one with "
            "`tatvpr-edge keys revoke KEY --new-list`"
        )
    return keys


def mark_text(board: str | None, downgrades: bool = False) -> bytes:
    """The content of a mark. It is sealed: one that lost the board that it insists on, or a letter
    of that word, would let every board's releases in."""
    return seal({"format": 1, "board": board, "downgrades": downgrades})


def _mark(mark: bytes, path: Path, renew: bool) -> dict[str, Any]:
    """What a mark says beside being there: ``board`` and ``downgrades``."""
    try:
        document: Any = parse_json(mark)
        if "sha256" in document:
            whole = mark == seal(document)
        else:  # boards that insisted before marks were sealed go on
            whole = {*document} - {"downgrades"} == {"format", "board"}
        board, downgrades = document["board"], document.get("downgrades", False)
        typed = (board is None or isinstance(board, str)) and isinstance(downgrades, bool)
        if whole and typed and document["format"] == 1:
            return {"board": board, "downgrades": downgrades}
    except (ValueError, AttributeError, TypeError, KeyError):
        pass
    if renew:
        return {}
    raise SignatureError(f"{path} is damaged: trust a key again with `tatvpr-edge keys trust`")
