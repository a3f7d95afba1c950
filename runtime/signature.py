"""Signatures of artifacts: OpenSSH's own (``ssh-keygen -Y``), no cryptography of ours.

In: an artifact's manifest as it was read, and the keys that this machine trusts
(:mod:`tatvpr_edge.runtime.trust`). Out: the signer's name, or SignatureError. Called by
``Localizer`` and ``verify`` (through the artifact's reader) and by the board's half of deploy, with
which all of this travels; what signs is :mod:`tatvpr_edge.runtime.signing`. Needs the standard
library and ``ssh-keygen``.

What is signed is ``manifest.json``, byte for byte; it holds the SHA-256 of every other file.
Signing adds the key ``serial`` (seconds since 1970, or what the signer says) to the manifest, so
that a board can refuse an artifact that is older than the installed one.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tatvpr_edge.spec.artifact import SignedManifest
from tatvpr_edge.spec.errors import SignatureError, ToolError
from tatvpr_edge.spec.manifest import parse_manifest
from tatvpr_edge.spec.sealed import sealed_bytes

from . import deployed, trust

NAMESPACE = "tatvpr-artifact"
RELEASE_NAMESPACE = "tatvpr-release"
_SECONDS = 60
#: 2026-01-01: no right clock is earlier than this file.
_WRITTEN = 1_767_225_600
#: How far the signer's clock may be ahead of ours.
_AHEAD_S = 86_400
#: Folders that only root can write, on Debian, macOS and NixOS.
_PLACES = ("/usr/bin", "/bin", "/usr/local/bin", "/run/current-system/sw/bin")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+\-]{0,99}")
KEY = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9@.\-]+ [A-Za-z0-9+/=]+")


def check_signer_name(name: str) -> str:
    """``name`` when it can stand in a list of signers.

    Raises:
        SignatureError: it has characters other than letters, digits and ``. _ @ + -``.
    """
    if _NAME.fullmatch(name) is None:
        raise SignatureError(
            f"{name[:80]!r} is no name of a key: letters, digits and '.', '_', '@', '+', '-' only"
        )
    return name


def check_public_key(text: str) -> str:
    """``TYPE BASE64`` of one OpenSSH public key line, its comment dropped.

    Raises:
        SignatureError: it is not one public key.
    """
    key = " ".join(text.split()[:2])
    if len(text.strip().splitlines()) != 1 or len(key) > 16384 or KEY.fullmatch(key) is None:
        raise SignatureError("not an OpenSSH public key: give the .pub file of `keys new`")
    return key


def signer_line(name: str, public_key: str) -> str:
    """A line of ``allowed_signers`` that trusts ``public_key`` for artifacts and releases only."""
    spaces = f"{NAMESPACE},{RELEASE_NAMESPACE}"
    return f'{check_signer_name(name)} namespaces="{spaces}" {check_public_key(public_key)}\n'


def artifact_verifier(
    root: str | Path | None = None, system: Path | None = None
) -> Callable[[SignedManifest], None] | None:
    """What ``read_artifact(verify_signature=...)`` wants on this machine.

    Returns None where neither the machine nor the install root enforces: then unsigned artifacts
    are accepted. Otherwise a function that raises SignatureError for an artifact that is unsigned,
    signed by an unknown or revoked key, altered, or older than the installed release.

    Raises:
        SignatureError: signatures are enforced, and the lists of keys cannot be believed.
    """
    place = deployed.install_root(root)
    trusted = trust.find(place, system)
    if trusted is None:
        return None

    def verify(signed: SignedManifest) -> None:
        check_private(signed.folder)
        check_trust(signed, trusted)
        if signed.folder not in deployed.stays(place):
            check_serial(
                manifest_serial(signed.manifest), deployed.lowest_serial(place), signed.folder
            )

    return verify


def check_private(folder: Path) -> None:
    """Where signatures are enforced, nobody else may write to what they cover.

    Raises:
        SignatureError: ``folder`` or one below it can be written by other users.
    """
    for place, _, _ in os.walk(folder):
        mode = os.lstat(place).st_mode
        if mode & 0o022:
            raise SignatureError(f"{place} can be written by other users: chmod go-w it")


def check_trust(signed: SignedManifest, trusted: trust.Trust) -> str:
    """The signer's name.

    Args:
        signed: the manifest and its signature, as they were read.
        trusted: the keys that decide.

    Raises:
        SignatureError: unsigned, signed by an unknown or revoked key, or altered.
    """
    folder = signed.folder
    if signed.signature is None:
        raise SignatureError(
            f"{folder} is unsigned, and this machine accepts signed artifacts only: sign it with "
            "`tatvpr-edge build --sign KEY`"
        )
    return check_signature(signed.signature, signed.manifest, trusted, NAMESPACE, str(folder))


def check_serial(serial: int, floor: int, what: str | Path, older: bool = False) -> None:
    """``serial`` is neither older than what is installed nor far in the future.

    Args:
        floor: the lowest serial accepted.
        what: named in errors.
        older: an older one is meant, and the board permits it.

    Raises:
        SignatureError: it is; one from the future would keep every later release out.
    """
    if serial < floor and not older:
        raise SignatureError(
            f"{what} has serial {serial}, older than the installed {floor}: to go back on "
            "purpose, use `tatvpr-edge rollback` or `deploy --allow-downgrade`"
        )
    now = int(time.time())
    # A clock that is behind what is installed, or behind this program, is not set: it judges none.
    if now >= max(floor, _WRITTEN) and serial > now + _AHEAD_S:
        raise SignatureError(
            f"{what} has serial {serial}, which lies {(serial - now) / 86400:.0f} days in the "
            "future: sign it again on a machine with the right time"
        )


def manifest_serial(manifest: bytes) -> int:
    """``serial`` of a manifest; 0 where it was never signed."""
    return parse_manifest(manifest).serial


def check_signature(
    signature: bytes, data: bytes, trusted: trust.Trust, namespace: str, what: str
) -> str:
    """The name of the trusted key that signed ``data`` for ``namespace``.

    Everything goes to ssh-keygen as sealed copies of bytes that were read once.

    Raises:
        SignatureError: no trusted key did, or it is revoked; ``what`` is named.
    """
    with sealed_bytes(signature, trusted.signers, trusted.revoked_list) as (made, allowed, revoked):
        inherited = [one.descriptor for one in (made, allowed, revoked)]

        def ask(*words: str) -> subprocess.CompletedProcess[bytes]:
            return ssh_keygen(["-Y", *words, "-s", made.path, "-f", allowed.path], data, inherited)

        found = ask("find-principals")
        names = found.stdout.decode("utf-8", "replace").split()
        if found.returncode or not names:
            raise SignatureError(
                f"{what} is signed by a key that this machine does not trust: sign it with a "
                "trusted key, or trust this one with `tatvpr-edge keys trust`"
            )
        name = names[0].split(",")[0]
        command = ["verify", "-I", name, "-n", namespace]
        done = ask(*command, *(["-r", revoked.path] if trusted.revoked else []))
        if done.returncode:
            why = "the manifest or the signature was altered"
            # ssh-keygen does not say which: good without the list means revoked by the list.
            if trusted.revoked and ask(*command).returncode == 0:
                why = "its key is revoked on this machine"
            elif b"namespace" in done.stderr:
                why = "its key is not trusted for this; trust it again with `keys trust`"
            raise SignatureError(f"{what}: signature refused: {why} ({last_line(done)})")
        return name


def ssh_keygen_path() -> str:
    """OpenSSH's ``ssh-keygen``, from a fixed place: whoever chooses PATH chooses no verdict.

    Raises:
        ToolError: it is in none of them, or somebody else may write it.
    """
    for place in _PLACES:
        path = os.path.join(place, "ssh-keygen")
        try:
            status = os.stat(path)
        except OSError:
            continue
        if status.st_uid == 0 and not status.st_mode & 0o022:
            return path
        raise ToolError(f"{path} can be written by others than root: install openssh-client anew")
    raise ToolError("ssh-keygen is missing: apt-get install openssh-client")


def ssh_keygen(
    arguments: list[str], data: bytes, inherited: Sequence[int] = (), person: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Run ssh-keygen. ``person``: it may ask for a passphrase, or the user's agent, and waits."""
    environment = {**(os.environ if person else {"PATH": "/usr/bin:/bin"}), "LC_ALL": "C"}
    try:
        return subprocess.run(
            [ssh_keygen_path(), *arguments],
            input=data,
            capture_output=True,
            timeout=None if person else _SECONDS,
            env=environment,
            check=False,
            pass_fds=inherited,
        )
    except subprocess.TimeoutExpired:
        raise SignatureError(f"ssh-keygen did not answer within {_SECONDS} s") from None


def last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"
