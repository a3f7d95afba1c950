"""Signatures of artifacts: OpenSSH's own (``ssh-keygen -Y``), no cryptography of ours.

In: an artifact's folder, and the keys that this machine trusts (``ROOT/trust``). Out: the signer's
name, or SignatureError. Called by ``Localizer`` and ``verify`` (through the artifact's reader), by
the board's half of deploy, and by ``build --sign``. Needs the standard library and ``ssh-keygen``.

What is signed is ``manifest.json``, byte for byte; it holds the SHA-256 of every other file.
Signing adds the key ``serial`` (seconds since 1970, or what the signer says) to the manifest, so
that a board can refuse an artifact that is older than the installed one.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tatvpr_edge.spec.errors import ArtifactError, SignatureError, ToolError
from tatvpr_edge.spec.manifest import MANIFEST, SIGNATURE, parse_manifest

from . import deployed

NAMESPACE = "tatvpr-artifact"
_SECONDS = 60
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+\-]{0,99}")
_KEY = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9@.\-]+ [A-Za-z0-9+/=]+")


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
    if len(text.strip().splitlines()) != 1 or len(key) > 16384 or _KEY.fullmatch(key) is None:
        raise SignatureError("not an OpenSSH public key: give the .pub file of `keys new`")
    return key


def signer_line(name: str, public_key: str) -> str:
    """A line of ``allowed_signers`` that trusts ``public_key`` for artifacts only."""
    return f'{check_signer_name(name)} namespaces="{NAMESPACE}" {check_public_key(public_key)}\n'


def trusted_lines(root: Path) -> list[str]:
    """The lines of ``allowed_signers``, without comments; empty where no key is trusted.

    Raises:
        SignatureError: the file is there and cannot be read: that is not "no key".
    """
    path = root / deployed.TRUST / deployed.ALLOWED_SIGNERS
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SignatureError(f"{path} cannot be read: {error.strerror}") from None
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def artifact_verifier(root: str | Path | None = None) -> Callable[[Path], None] | None:
    """What ``read_artifact(verify_signature=...)`` wants on this machine.

    Returns None where no key is trusted: then unsigned artifacts are accepted. Otherwise a
    function that raises SignatureError for a folder that is unsigned, signed by an unknown or
    revoked key, altered, or older than the installed release.
    """
    place = deployed.install_root(root)
    if not trusted_lines(place):
        return None

    def verify(folder: Path) -> None:
        check_trust(folder, place)

    return verify


def check_trust(folder: Path, root: Path, allow_older: bool = False) -> str | None:
    """The signer's name; None where this machine trusts no key.

    Args:
        folder: the artifact.
        root: the install root, whose ``trust`` and ``state.json`` decide.
        allow_older: accept a serial below the installed one (an explicit downgrade).

    Raises:
        SignatureError: unsigned, signed by an unknown or revoked key, altered, or older than the
            installed release.
    """
    if not trusted_lines(root):
        return None
    if not (folder / SIGNATURE).is_file():
        raise SignatureError(
            f"{folder} is unsigned, and this machine accepts signed artifacts only: sign it with "
            "`tatvpr-edge build --sign KEY`"
        )
    manifest = (folder / MANIFEST).read_bytes()
    signer = _verify(folder / SIGNATURE, manifest, root)
    floor = deployed.lowest_serial(root)
    serial = manifest_serial(manifest)
    if serial < floor and not allow_older:
        raise SignatureError(
            f"{folder} has serial {serial}, older than the installed {floor}: to go back on "
            "purpose, use `tatvpr-edge rollback` or `deploy --allow-downgrade`"
        )
    return signer


def manifest_serial(manifest: bytes) -> int:
    """``serial`` of a manifest; 0 where it was never signed."""
    return parse_manifest(manifest).serial


def sign_artifact(folder: str | Path, key: str | Path, serial: int | None = None) -> Path:
    """Sign an artifact in place and return the path of its signature.

    Args:
        folder: an artifact; its manifest gets ``serial`` (SOURCE_DATE_EPOCH, else the time).
        key: an OpenSSH private key, or the public key of one that ssh-agent holds.

    Raises:
        SignatureError: the key is missing, or ssh-keygen refuses it.
        ArtifactError: the folder is not an artifact.
        ToolError: ssh-keygen is not installed.
    """
    import dataclasses

    from tatvpr_edge.spec.artifact import read_artifact

    if not Path(key).is_file():
        raise SignatureError(f"no key at {key}: make one with `tatvpr-edge keys new NAME`")
    if serial is None:
        serial = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    artifact = read_artifact(folder)
    data = dataclasses.replace(artifact.manifest, serial=serial).to_json()
    # The key is opened by ssh-keygen, which may ask for its passphrase on the terminal.
    done = _ssh_keygen(["-Y", "sign", "-f", os.fspath(key), "-n", NAMESPACE], data)
    if done.returncode or b"BEGIN SSH SIGNATURE" not in done.stdout:
        raise SignatureError(f"cannot sign with {key}: {_last_line(done)}")
    # The old signature goes first and the new one comes last: between them the artifact is whole
    # and unsigned, never signed for another manifest.
    with contextlib.suppress(FileNotFoundError):
        (artifact.root / SIGNATURE).unlink()
    for name, content in ((MANIFEST, data), (SIGNATURE, done.stdout)):
        _replace(artifact.root, name, content)
    return artifact.root / SIGNATURE


def _verify(signature: Path, manifest: bytes, root: Path) -> str:
    allowed = os.fspath(root / deployed.TRUST / deployed.ALLOWED_SIGNERS)
    found = _ssh_keygen(
        ["-Y", "find-principals", "-s", os.fspath(signature), "-f", allowed], manifest
    )
    names = found.stdout.decode("utf-8", "replace").split()
    if found.returncode or not names:
        raise SignatureError(
            f"{signature.parent} is signed by a key that this machine does not trust: sign it "
            "with a trusted key, or trust this one with `tatvpr-edge keys trust`"
        )
    name = names[0].split(",")[0]
    command = ["-Y", "verify", "-f", allowed, "-I", name, "-n", NAMESPACE]
    command += ["-s", os.fspath(signature)]
    revoked = root / deployed.TRUST / deployed.REVOKED_KEYS
    revocations = ["-r", os.fspath(revoked)] if revoked.exists() else []
    done = _ssh_keygen([*command, *revocations], manifest)
    if done.returncode:
        why = "the manifest or the signature was altered"
        # ssh-keygen does not say which: a signature that is good without the list is revoked by it.
        if revocations and _ssh_keygen(command, manifest).returncode == 0:
            why = "its key is revoked on this machine"
        raise SignatureError(f"{signature.parent}: signature refused: {why} ({_last_line(done)})")
    return name


def _ssh_keygen(arguments: list[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments],
            input=data,
            capture_output=True,
            timeout=_SECONDS,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise ToolError("ssh-keygen is missing: apt-get install openssh-client") from None
    except subprocess.TimeoutExpired:
        raise SignatureError(f"ssh-keygen did not answer within {_SECONDS} s") from None


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def _replace(folder: Path, name: str, content: bytes) -> None:
    """Write a file of an artifact atomically; its temporary lies beside the folder, because the
    folder may hold listed files only."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{folder.name}.", dir=folder.parent)
    except OSError as error:
        raise ArtifactError(f"cannot write beside {folder}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, folder / name)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


__all__ = [
    "NAMESPACE",
    "artifact_verifier",
    "check_public_key",
    "check_signer_name",
    "check_trust",
    "manifest_serial",
    "sign_artifact",
    "signer_line",
    "trusted_lines",
]
