"""What signs artifacts and lists of releases, for ``build --sign`` and ``deploy --sign``.

Apart from :mod:`tatvpr_edge.runtime.signature`, which judges signatures and travels to a board with
every session.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

from tatvpr_edge.runtime.signature import KEY, NAMESPACE, last_line, ssh_keygen
from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.errors import ArtifactError, SignatureError
from tatvpr_edge.spec.manifest import MANIFEST, SIGNATURE, parse_manifest

_LINE = 16_384  # more than the longest public key's
_PRIVATE = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")


def new_serial() -> int:
    """Seconds since 1970 (SOURCE_DATE_EPOCH, else now).

    Raises:
        SignatureError: SOURCE_DATE_EPOCH is no such number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return int(time.time())
    if re.fullmatch(r"[0-9]{1,15}", text) is None:
        raise SignatureError(f"SOURCE_DATE_EPOCH is {text[:40]!r}: whole seconds since 1970")
    return int(text)


def check_key(key: str | Path) -> None:
    """There is a file to sign with, and it begins as a private or a public SSH key does.

    Raises:
        SignatureError: there is none.
    """
    if not Path(key).is_file():
        raise SignatureError(f"no key at {key}: make one with `tatvpr-edge keys new NAME`")
    try:
        with Path(key).open("rb") as file:
            first = file.readline(_LINE).decode("ascii", "replace")
    except OSError as error:
        raise SignatureError(f"the key {key} cannot be read: {error.strerror}") from None
    if _PRIVATE.match(first) is None and KEY.match(first) is None:
        raise SignatureError(
            f"{key} is no SSH key: give the private key that `tatvpr-edge keys new NAME` makes, "
            "or the public one of a key that ssh-agent holds"
        )


def sign_bytes(data: bytes, key: str | Path, namespace: str) -> bytes:
    """An OpenSSH signature of ``data``.

    Raises:
        SignatureError: the key is missing, or ssh-keygen refuses it.
        ToolError: ssh-keygen is not installed.
    """
    check_key(key)
    # The key is opened by ssh-keygen, which may ask for its passphrase on the terminal.
    done = ssh_keygen(["-Y", "sign", "-f", os.fspath(key), "-n", namespace], data, person=True)
    if done.returncode or b"BEGIN SSH SIGNATURE" not in done.stdout:
        raise SignatureError(f"cannot sign with {key}: {last_line(done)}")
    return done.stdout


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

    serial = new_serial() if serial is None else serial
    artifact = read_artifact(folder)
    data = dataclasses.replace(artifact.manifest, serial=serial).to_json()
    parse_manifest(data)  # a serial that no reader takes may not cost the artifact
    made = sign_bytes(data, key, NAMESPACE)
    # The old signature goes first and the new one comes last: between them the artifact is whole
    # and unsigned, never signed for another manifest.
    with contextlib.suppress(FileNotFoundError):
        (artifact.root / SIGNATURE).unlink()
    for name, content in ((MANIFEST, data), (SIGNATURE, made)):
        _replace(artifact.root, name, content)
    return artifact.root / SIGNATURE


def _replace(folder: Path, name: str, content: bytes) -> None:
    """Write a file of an artifact atomically; its temporary lies beside the folder, because the
    folder may hold listed files only."""
    try:
        with replacing(folder / name, mode=0o644, beside=folder) as sink:
            sink.write(content)
    except OSError as error:
        raise ArtifactError(f"cannot write beside {folder}: {error.strerror}") from None
