"""An artifact: a folder with ``manifest.json``, code, weights and golden vectors.

The writer assembles it beside its place and renames it there, so that a power cut leaves nothing
or the whole. The reader believes nothing that it has not checked: every file is listed, inside the
folder, a plain file with one name, of the stated size and SHA-256. It needs the standard library
only, because it runs on the board.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .atomic import naming, put_new, replacing, staging, sync_folder
from .errors import ArtifactError
from .manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    FileEntry,
    Manifest,
    check_member,
    parse_manifest,
)
from .sealed import Sealed, seal
from .text import printable

_CHUNK = 1 << 20
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_MAX_SIGNATURE_BYTES = 1 << 16


@dataclass(frozen=True)
class SignedManifest:
    """What a signature is checked over: bytes that were read once, the same that are parsed.

    ``folder`` is the artifact's real folder; ``signature`` the bytes of ``manifest.sig``, or None.
    """

    folder: Path
    manifest: bytes
    signature: bytes | None


#: Called after the manifest was parsed and before any file is trusted; raises SignatureError.
VerifySignature = Callable[[SignedManifest], None]


@dataclass(frozen=True)
class Artifact:
    """An artifact that was checked. ``root`` is its real folder, links resolved."""

    root: Path
    manifest: Manifest
    #: SHA-256 of ``manifest.json``: names these very bytes (the manifest holds all other hashes).
    hash: str
    #: Bytes of ``manifest.sig`` as read beside the manifest (good or not); None where it is absent.
    signature: bytes | None = None

    def path(self, member: str) -> Path:
        """Where the listed file ``member`` lies."""
        return self.root / self.manifest.file(member).path

    def read(self, member: str) -> bytes:
        """The bytes of ``member``, checked again, because the folder may have changed since.

        Raises:
            ArtifactError: the file is not listed, or no longer what the manifest says.
        """
        entry = self.manifest.file(member)
        with _open_plain(self.root, entry.path) as chunks:
            data = b"".join(chunks)
        _check_content(entry, len(data), hashlib.sha256(data).hexdigest())
        return data

    def sealed(self, member: str) -> Sealed:
        """A sealed copy of ``member``, to be loaded: what was hashed is what it holds for ever.

        Raises:
            ArtifactError: the file is not listed, or no longer what the manifest says.
        """
        entry = self.manifest.file(member)
        with _open_plain(self.root, entry.path) as chunks:
            copy = seal(entry.path, chunks)
        try:
            _check_content(entry, copy.bytes, copy.sha256)
        except ArtifactError:
            copy.close()
            raise
        return dataclasses.replace(copy, name=str(self.root / member))  # errors name it whole

    @property
    def signed(self) -> bool:
        """Whether a signature lies beside the manifest (not whether it is good)."""
        return self.signature is not None


# ---- writing ---------------------------------------------------------------------------------


def write_artifact(
    output: str | Path, manifest: Manifest, files: Mapping[str, bytes | str | Path]
) -> Artifact:
    """Write a new artifact to ``output`` and return it as read back.

    Args:
        output: a folder that does not exist yet; its parent does.
        manifest: everything but ``files``, which is computed here.
        files: relative name -> content, or the path of a file to copy.

    Raises:
        ArtifactError: ``output`` exists, a name is unsafe, or a field of the manifest is wrong.
        OSError: the disk is full or not writable; nothing is left behind. It names ``output``.
    """
    output = Path(output)
    if os.path.lexists(output):
        raise ArtifactError(f"{output} exists already: remove it or name another --output")
    if not output.parent.is_dir():
        raise ArtifactError(f"{output.parent} is not a folder: create it first")
    with naming(output), staging(output) as made:
        entries = [_write_member(made, name, files[name]) for name in sorted(files)]
        data = dataclasses.replace(manifest, files=tuple(entries)).to_json()
        parse_manifest(data)
        _write_synced(made / MANIFEST, [data])
        for folder, _, _ in os.walk(made, topdown=False):
            os.chmod(folder, 0o755)
            sync_folder(Path(folder))
        take_new(made, output)
    return read_artifact(output)


def replace_profile(path: str | Path, profile: Mapping[str, Any], unsign: bool = False) -> Artifact:
    """Put a measured profile ``{"device": {...}, "points": [...]}`` into an artifact, atomically.

    Raises:
        ArtifactError: the profile is malformed, or the artifact is signed and ``unsign`` is false:
            the signature covers the profile, so it has to be made again.
    """
    artifact = read_artifact(path)
    if artifact.signed and not unsign:
        raise ArtifactError(
            f"{path} is signed and its signature covers the profile: remove {SIGNATURE}, write "
            "the profile, and sign again"
        )
    data = dataclasses.replace(artifact.manifest, profile=dict(profile)).to_json()
    parse_manifest(data)
    # The signature goes first: between the two steps the artifact is whole and unsigned.
    with contextlib.suppress(FileNotFoundError):
        (artifact.root / SIGNATURE).unlink()
    # The temporary lies beside the folder, which may hold listed files only.
    with replacing(artifact.root / MANIFEST, mode=0o644, beside=artifact.root) as sink:
        sink.write(data)
    return read_artifact(path)


def _write_member(root: Path, name: str, content: bytes | str | Path) -> FileEntry:
    target = root / check_member(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for chunk in _content_chunks(content):
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    _write_synced(target, counted())
    return FileEntry(name, size, digest.hexdigest())


def _content_chunks(content: bytes | str | Path) -> Iterator[bytes]:
    if isinstance(content, bytes | bytearray | memoryview):
        yield bytes(content)
        return
    with open(content, "rb") as source:
        while chunk := source.read(_CHUNK):
            yield chunk


def _write_synced(path: Path, chunks: Any) -> None:
    with open(path, "xb") as sink:
        for chunk in chunks:
            sink.write(chunk)
        sink.flush()
        os.fsync(sink.fileno())
    os.chmod(path, 0o644)


def take_new(made: Path, output: Path) -> None:
    """Put a whole artifact at ``output``, where nothing lies.

    Raises:
        ArtifactError: something appeared there meanwhile, or it cannot be written.
    """
    try:
        put_new(made, output)
    except FileExistsError:
        raise ArtifactError(
            f"{output} appeared while the artifact was written, and stays: remove it or name "
            "another --output"
        ) from None
    except OSError as error:
        raise ArtifactError(f"cannot put the artifact at {output}: {error.strerror}") from error


# ---- reading ---------------------------------------------------------------------------------

#: (device, inode, time of the last change in ns, bytes) of a manifest.
Identity = tuple[int, int, int, int]

_Given = TypeVar("_Given")


def identity(path: str | Path) -> Identity | None:
    """What tells the manifest in the folder ``path`` from another; None: there is none."""
    try:
        status = os.stat(os.path.join(path, MANIFEST))
    except (OSError, TypeError, ValueError):  # whoever reads it says what is wrong
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def once_more(look: Callable[[], object], read: Callable[[], _Given]) -> _Given:
    """What ``read`` gives. Where it fails and ``look`` finds another artifact than before, some
    files were of one and some of the other, which is no damage: then it is called again, once."""
    before = look()
    try:
        return read()
    except (ArtifactError, OSError):
        if look() == before:
            raise
    return read()


def read_artifact(
    path: str | Path,
    board: str | None = None,
    verify_signature: VerifySignature | None = None,
) -> Artifact:
    """Check an artifact wholly and return it. One that is refused is read once more where another
    artifact took its place meanwhile.

    Args:
        path: its folder; a link to it (as ``current`` on a board) is followed once.
        board: the board that it must be for; None accepts any.
        verify_signature: called with the very bytes that were parsed, and the signature's;
            raises SignatureError where the signature is not good.

    Raises:
        ArtifactError: by name of the fault: not an artifact, truncated, altered, missing or extra
            file, unsafe name or link, newer format, unknown required feature, another board.
        SignatureError: from ``verify_signature``.
    """
    return once_more(lambda: identity(path), lambda: _read(path, board, verify_signature))


def _read(
    path: str | Path, board: str | None, verify_signature: VerifySignature | None
) -> Artifact:
    signed = read_signed(path)
    manifest = _parse(path, signed.manifest)
    root = signed.folder
    if verify_signature is not None:
        verify_signature(signed)
    if board is not None and manifest.board != board:
        raise ArtifactError(
            f"{path} is for board {manifest.board}, not {board}: build it with --board {board}"
        )
    _check_listing(root, manifest)
    for entry in manifest.files:
        with _open_plain(root, entry.path) as chunks:
            content, size = hashlib.sha256(), 0
            for chunk in chunks:
                content.update(chunk)
                size += len(chunk)
        _check_content(entry, size, content.hexdigest())
    return Artifact(root, manifest, hashlib.sha256(signed.manifest).hexdigest(), signed.signature)


def read_manifest(path: str | Path) -> Manifest:
    """The manifest alone, its files unchecked: for listings, never for running.

    Raises:
        ArtifactError: as :func:`read_artifact`, for the manifest.
    """
    return _parse(path, read_signed(path).manifest)


def read_signed(path: str | Path) -> SignedManifest:
    """Manifest and signature, each opened and read once; neither is believed yet.

    Raises:
        ArtifactError: there is no manifest, or one of them is a link, no plain file, or too large.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        shown = printable(repr(path))[:80]
        raise ArtifactError(f"an artifact is a folder, and {shown} names none")
    try:
        root = Path(os.path.realpath(path))
        is_folder = root.is_dir()
    except (ValueError, OSError):  # a NUL or half a character in it, or longer than any name
        shown = printable(repr(path))[:80]
        raise ArtifactError(f"{shown} is not an artifact: no such folder") from None
    if not is_folder:
        raise ArtifactError(f"{path} is not an artifact: no such folder")
    if not os.path.lexists(root / MANIFEST):
        raise ArtifactError(f"{path} is not an artifact: it has no {MANIFEST}")
    manifest = _read_small(root, MANIFEST, MAX_MANIFEST_BYTES)
    signature = None
    if os.path.lexists(root / SIGNATURE):
        signature = _read_small(root, SIGNATURE, _MAX_SIGNATURE_BYTES)
    return SignedManifest(root, manifest, signature)


def _read_small(root: Path, name: str, most: int) -> bytes:
    with _open_plain(root, name) as chunks:
        data = bytearray()
        for chunk in chunks:
            data += chunk
            if len(data) > most:
                raise ArtifactError(f"{root}: {name} is too large to be ours")
        return bytes(data)


def _parse(path: str | Path, data: bytes) -> Manifest:
    try:
        return parse_manifest(data)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def _check_listing(root: Path, manifest: Manifest) -> None:
    listed = {entry.path for entry in manifest.files}
    folders = {parent.as_posix() for name in listed for parent in Path(name).parents if parent.name}
    found = set()
    for name, kind in _walk(root, ""):
        if kind == "folder":
            if name not in folders:
                raise ArtifactError(_stranger(root, f"the folder {name!r}"))
        elif name not in (MANIFEST, SIGNATURE):
            if name not in listed:
                raise ArtifactError(_stranger(root, repr(name)))
            found.add(name)
    for name in sorted(listed - found):
        raise ArtifactError(f"{root}: file {name} is missing: build or copy the artifact again")


def _stranger(root: Path, what: str) -> str:
    return f"{root} holds {what}, which is not in its list: refused until that lies elsewhere"


def _walk(root: Path, inside: str) -> Iterator[tuple[str, str]]:
    """Every name below ``root`` as ``("a/b", "file" | "folder")``; links and devices refused."""
    with os.scandir(root / inside) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            name = f"{inside}/{entry.name}" if inside else entry.name
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                yield name, "folder"
                yield from _walk(root, name)
            elif stat.S_ISREG(mode):
                yield name, "file"
            else:
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a plain file"
                raise ArtifactError(f"{root}: {name!r} is {kind}: refused")


@contextlib.contextmanager
def _open_plain(root: Path, name: str) -> Iterator[Iterator[bytes]]:
    """The bytes of a regular file with one name, no link on the way to it, in pieces."""
    for parent in Path(name).parents:
        if parent.name and (root / parent).is_symlink():
            raise ArtifactError(f"{root}: folder {parent} is a symbolic link: refused")
    try:
        descriptor = os.open(root / name, os.O_RDONLY | _NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ArtifactError(f"{root}: file {name} is missing") from None
    except OSError as error:
        link = (root / name).is_symlink()
        why = "is a symbolic link: refused" if link else f"cannot be read: {error.strerror}"
        raise ArtifactError(f"{root}: {name} {why}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{root}: {name} is not a plain file: refused")
        if status.st_nlink > 1:
            raise ArtifactError(
                f"{root}: {name} has a second name on this disk (a hard link), through which it "
                "could be altered: copy the artifact instead of linking it"
            )
        yield _chunks(descriptor, f"{root}: {name}")
    finally:
        os.close(descriptor)


def _chunks(descriptor: int, what: str) -> Iterator[bytes]:
    try:
        while chunk := os.read(descriptor, _CHUNK):
            yield chunk
    except OSError as error:  # a bad block of the medium, as good as damage
        raise ArtifactError(f"{what} cannot be read: {error.strerror}") from None


def _check_content(entry: FileEntry, size: int, digest: str) -> None:
    if size < entry.bytes:
        raise ArtifactError(
            f"file {entry.path} is truncated: {size} of {entry.bytes} bytes; copy it again"
        )
    if size > entry.bytes or digest != entry.sha256:
        raise ArtifactError(
            f"file {entry.path} was altered: its SHA-256 is not the manifest's; build or copy the "
            "artifact again"
        )
