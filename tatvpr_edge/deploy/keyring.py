"""The keys that a board trusts, and whether it insists on them: changes to both.

Runs on the board as part of the agent (standard library only). Where the user may write the
machine's folder (root), the machine's lists are changed, and every program on the board is held to
them; elsewhere only the install root's. What the lists mean is :mod:`tatvpr_edge.runtime.trust`.
Lines are added, never removed: a key that is no longer wanted is revoked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime import deployed, signature, signed_release, trust
from tatvpr_edge.runtime.private import NotPrivate, check_folder, owners
from tatvpr_edge.runtime.trust import Trust
from tatvpr_edge.spec.artifact import read_signed
from tatvpr_edge.spec.errors import ArtifactError, SignatureError

from .store import Store


class Keyring:
    """The lists that decide for ``store``'s root. ``system``: the machine's own folder."""

    def __init__(self, store: Store, system: Path) -> None:
        self.store = store
        self.root = Path(store.root)
        self.system = system

    # ---- asking ------------------------------------------------------------------------------

    def trusted(self) -> Trust | None:
        """What is enforced here; see :func:`tatvpr_edge.runtime.trust.find`."""
        return trust.find(self.root, self.system)

    def report(self) -> dict[str, Any]:
        """For ``status``: ``keys`` as ``{name, key, revoked}``; ``enforced``: "machine", "root" or
        None; ``trust``: where the lists lie; ``trust_fault``: why nothing is trusted, or None."""
        answer: dict[str, Any] = {
            "keys": [],
            "enforced": None,
            "trust": None,
            "trust_fault": None,
            "board": None,
            "downgrades": False,
        }
        try:
            found = self.trusted()
        except SignatureError as error:
            return {**answer, "enforced": "machine or root", "trust_fault": str(error)}
        if found is None:
            return answer
        scope = "machine" if found.base == self.system else "root"
        return {
            **answer,
            "keys": [
                {"name": name, "key": key, "revoked": key in found.revoked}
                for name, key in _entries(found)
            ],
            "enforced": scope,
            "trust": os.fspath(found.base),
            "board": found.board,
            "downgrades": found.downgrades,
        }

    def warning(self) -> str | None:
        """What is not held to signatures although this root is; None where nothing is missing."""
        found = self.trusted()
        if found is None or found.base == self.system:
            return None
        return (
            f"only programs that use {self.root} are held to signed releases: this user cannot "
            f"write {self.system}; to hold the whole machine to them, run `tatvpr-edge keys trust` "
            "as root"
        )

    # ---- changing ----------------------------------------------------------------------------

    def trust(self, name: str, key: str, live: Path | None, force: bool) -> None:
        """Trust ``key`` (one public key line) under ``name``, and insist on signatures.

        Args:
            live: the live artifact; it must be signed by a trusted key afterwards, because
                ``Localizer`` refuses it otherwise.
            force: trust the key even so.

        Raises:
            SignatureError: the key is malformed or revoked, the name is taken by another key, the
                live artifact would be refused, or the lists cannot be believed. Nothing is changed.
        """
        line = signature.signer_line(name, key)
        public = signature.check_public_key(key)
        base = self._target()
        known = self._known(base)
        if public in known.revoked:
            raise SignatureError(f"key {name} is revoked on this board: make a new one")
        entries = _entries(known)
        if any(other == name and its != public for other, its in entries):
            raise SignatureError(f"the board trusts another key named {name}: choose another name")
        if line.strip() not in known.lines():
            # Also where an earlier version trusted the same key for artifacts only.
            known = replace(known, signers=_appended(_without(known.signers, public), line))
        if live is not None and not force:
            try:
                _check(known, live)
            except ArtifactError as error:
                raise SignatureError(
                    f"the live release would be refused from now on ({error}): build and deploy it "
                    "with --sign and this key first, or use --force"
                ) from None
        self._write(known)

    def revoke(self, key: str, live: Path | None, force: bool, new_list: bool) -> None:
        """Refuse ``key`` (one public key line) from now on.

        Args:
            live: the live artifact; revoking its signer's key ends it at its next start.
            force: revoke the key even so.
            new_list: begin a new list of revoked keys, because the old one is lost or damaged.

        Raises:
            SignatureError: it is malformed, or it signed the live artifact.
        """
        public = signature.check_public_key(key)
        base = self._target()
        before = self._known(base, new_list)
        after = replace(before, revoked=tuple(dict.fromkeys([*before.revoked, public])))
        if live is not None and not force and _accepts(before, live) and not _accepts(after, live):
            raise SignatureError(
                "this key signed the live release, which would not start again: deploy one that "
                "another trusted key signed first, or use --force"
            )
        self._write(after, insist=trust.enforced(base))

    def downgrades(self, permitted: bool) -> None:
        """Whether ``deploy --allow-downgrade`` may install something older from now on.

        Raises:
            SignatureError: nothing is enforced, or this user may not change it.
        """
        base = self._target()
        if not trust.enforced(base):
            raise SignatureError("this board enforces no signatures: it accepts older ones anyway")
        self._write(replace(self._known(base), downgrades=permitted))

    def off(self) -> str:
        """Accept unsigned artifacts again; returns the place that no longer enforces. Revoked keys
        stay revoked.

        Raises:
            SignatureError: nothing is enforced, or this user may not change it.
        """
        for base in (self.system, self.root):
            if not trust.enforced(base):
                continue
            with _told(base):
                # The list goes first: between the two nothing is trusted.
                for path in (trust.signers_path(base), trust.mark_path(base)):
                    self.store.discard(os.fspath(path))
                    if path.parent.is_dir():
                        self.store.disk.sync_folder(os.fspath(path.parent))
            return os.fspath(base)
        raise SignatureError("this board enforces no signatures: there is nothing to turn off")

    # ---- parts -------------------------------------------------------------------------------

    def _target(self) -> Path:
        """The place that is changed: the machine's where it enforces or can be written."""
        if trust.enforced(self.system):
            return self.system
        existing = self.system
        while not existing.exists():
            existing = existing.parent
        writable = existing.is_dir() and os.access(existing, os.W_OK)
        return self.system if writable else self.root

    def _known(self, base: Path, new_list: bool = False) -> Trust:
        """The lists of ``base`` to build upon; those of the root where the machine has none yet."""
        for place in dict.fromkeys((base, self.root)):
            if trust.enforced(place) or trust.revoked_path(place).exists():
                return replace(trust.read(place, renew=True, new_list=new_list), base=base)
        return Trust(base, b"", ())

    def _write(self, lists: Trust, insist: bool = True) -> None:
        """Write lists and mark of a place; what is written first refuses more, never less."""
        disk, base = self.store.disk, lists.base
        with _told(base):
            for folder in (base, base / deployed.TRUST):
                if not os.path.lexists(folder):
                    disk.mkdir(os.fspath(folder))
                    disk.sync_folder(os.fspath(folder.parent))
                check_folder(folder if folder != self.root else folder.resolve(), owners())
            self.store.replace(os.fspath(trust.revoked_path(base)), lists.revoked_list)
            if insist:
                self.store.replace(os.fspath(trust.signers_path(base)), lists.signers)
                mark = trust.mark_text(lists.board, lists.downgrades)
                self.store.replace(os.fspath(trust.mark_path(base)), mark)


def _check(lists: Trust, live: Path) -> None:
    """The live artifact and its release's list are signed by keys of ``lists``."""
    signature.check_trust(read_signed(live), lists)
    signed_release.check_installed(live.parent, lists)


def _accepts(lists: Trust, live: Path) -> bool:
    try:
        _check(lists, live)
    except ArtifactError:  # of no trusted key, or damaged
        return False
    return True


@contextlib.contextmanager
def _told(base: Path) -> Iterator[None]:
    try:
        yield
    except NotPrivate as error:
        raise SignatureError(str(error)) from None
    except PermissionError:
        raise SignatureError(
            f"{base} decides on this board, and this user may not write it: log in as root"
        ) from None


def _entries(lists: Trust) -> list[tuple[str, str]]:
    """(name, public key) of every line of a list of signers; the key empty where it has none."""
    entries = []
    for line in lists.lines():
        words = line.split()
        kind = next((i for i, w in enumerate(words) if w.startswith(("ssh-", "ecdsa-", "sk-"))), -1)
        entries.append((words[0], " ".join(words[kind : kind + 2]) if kind > 0 else ""))
    return entries


def _without(text: bytes, public: str) -> bytes:
    """A list of signers without the lines of a key."""
    lines = text.splitlines(keepends=True)
    return b"".join(line for line in lines if f" {public}".encode("ascii") not in line)


def _appended(text: bytes, line: str) -> bytes:
    if text and not text.endswith(b"\n"):
        text += b"\n"
    return text + line.encode("utf-8")
