"""The keys that a board trusts: ``trust/allowed_signers`` and ``trust/revoked_keys``.

Runs on the board as part of the agent (standard library only). Lines are added, never removed: a
key that is no longer wanted is revoked, because a board whose list became empty would accept
unsigned artifacts again.
"""

from __future__ import annotations

import os
from pathlib import Path

from tatvpr_edge.runtime import deployed, signature
from tatvpr_edge.spec.errors import SignatureError

from .store import Store


def names(store: Store) -> list[dict[str, str | bool]]:
    """The trusted keys: ``{name, key, revoked}``."""
    revoked = _read(store, deployed.REVOKED_KEYS)
    keys: list[dict[str, str | bool]] = []
    for line in signature.trusted_lines(Path(store.root)):
        words = line.split()
        kind = next((i for i, word in enumerate(words) if word.startswith(("ssh-", "ecdsa-"))), -1)
        key = " ".join(words[kind : kind + 2]) if kind > 0 else ""
        keys.append({"name": words[0], "key": key, "revoked": bool(key) and key in revoked})
    return keys


def trust(store: Store, name: str, key: str, live: Path | None, force: bool) -> None:
    """Trust ``key`` (one public key line) under ``name``.

    Args:
        live: the live artifact; it must be signed by a trusted key afterwards, because
            ``Localizer`` refuses it otherwise.
        force: trust the key even so.

    Raises:
        SignatureError: the key is malformed or revoked, the name is taken by another key, or the
            live artifact would be refused. Nothing is changed then.
    """
    line = signature.signer_line(name, key)
    public = signature.check_public_key(key)
    if public in _read(store, deployed.REVOKED_KEYS):
        raise SignatureError(f"key {name} is revoked on this board: make a new one")
    for known in names(store):
        if known["name"] == name and known["key"] != public:
            raise SignatureError(f"the board trusts another key named {name}: choose another name")
        if known["key"] == public:
            return
    path = store.path(deployed.TRUST, deployed.ALLOWED_SIGNERS)
    before = _read(store, deployed.ALLOWED_SIGNERS)
    store.replace(path, _appended(before, line))
    if live is None or force:
        return
    try:
        signature.check_trust(live, Path(store.root))
    except SignatureError as error:
        if before:
            store.replace(path, before.encode("utf-8", "surrogateescape"))
        else:
            store.disk.unlink(path)
            store.disk.sync_folder(os.path.dirname(path))
        raise SignatureError(
            f"the live release would be refused from now on ({error}): deploy it signed with this "
            "key first, or use --force"
        ) from None


def revoke(store: Store, key: str) -> None:
    """Refuse ``key`` (one public key line) from now on.

    Raises:
        SignatureError: it is malformed.
    """
    public = signature.check_public_key(key)
    before = _read(store, deployed.REVOKED_KEYS)
    if public not in before:
        path = store.path(deployed.TRUST, deployed.REVOKED_KEYS)
        store.replace(path, _appended(before, public + "\n"))


def _read(store: Store, name: str) -> str:
    try:
        with open(store.path(deployed.TRUST, name), "rb") as source:
            return source.read().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def _appended(text: str, line: str) -> bytes:
    if text and not text.endswith("\n"):
        text += "\n"
    return (text + line).encode("utf-8", "surrogateescape")
