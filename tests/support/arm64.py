"""An arm64 Linux to run under ``qemu-aarch64``: Debian's Python, NumPy's wheel, our wheel.

Nothing is installed on the host. The root (about 110 MB) is made once from Debian's packages and
kept in ``~/.cache/tatvpr-edge-tests`` (``TATVPR_CACHE`` names another place). No chroot and no
binfmt: an arm64 program that starts another one has to start ``qemu-aarch64`` itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from support.tools import lacking, require_tool

PROJECT = Path(__file__).resolve().parent.parent.parent
PYTHON = "usr/bin/python3.11"
PACKAGES = ("python3.11", "libgomp1", "libstdc++6")
NUMPY = "numpy==2.2.6"
PIP = (sys.executable, "-m", "pip")
# Raised whenever what is below changes what the root holds.
_LAYOUT = 1


def cache_folder() -> Path:
    """Where downloaded and built test material is kept between runs."""
    named = os.environ.get("TATVPR_CACHE")
    path = Path(named) if named else Path.home() / ".cache" / "tatvpr-edge-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _made_once(name: str, make: Callable[[Path], None]) -> Path:
    """``cache/name``, made by ``make`` beside its place and renamed; safe among processes."""
    target = cache_folder() / name
    with _locked(cache_folder() / f"{name}.lock"):
        if not target.exists():
            staging = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=target.parent))
            try:
                make(staging)
                staging.chmod(0o755)
                staging.rename(target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return target


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str | Path], **options: object) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        **options,  # type: ignore[call-overload]
    )


def _make_root(root: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="arm64-apt-") as name:
        apt = Path(name)
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (apt / folder).mkdir(parents=True)
        (apt / "status").touch()
        options = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Sandbox::User": "",
            "Dir::State": apt / "state",
            "Dir::State::status": apt / "status",
            "Dir::Cache": apt / "cache",
        }
        command = ["apt-get", "-qq", "-y"]
        for key, value in options.items():
            command += ["-o", f"{key}={value}"]
        _run([*command, "update"])
        _run([*command, "--no-install-recommends", "--download-only", "install", *PACKAGES])
        for package in sorted((apt / "cache" / "archives").glob("*.deb")):
            _run(["dpkg", "-x", package, root])
        wheels = apt / "wheels"
        wanted = ["--only-binary=:all:", "--python-version", "3.11"]
        for platform in ("manylinux2014_aarch64", "manylinux_2_28_aarch64"):
            wanted += ["--platform", platform]
        _run([*PIP, "download", "-q", "--no-deps", *wanted, "-d", str(wheels), NUMPY])
        for wheel in wheels.glob("*.whl"):
            shutil.unpack_archive(wheel, root / "opt" / "site", "zip")


@cache
def arm64_root() -> Path:
    """The root folder; the calling test is skipped (CI: fails) where it cannot be made."""
    require_tool("qemu-aarch64", "qemu-user")
    require_tool("apt-get", "apt")
    require_tool("dpkg", "dpkg")
    try:
        return _made_once(f"arm64-root-{_LAYOUT}", _make_root)
    except subprocess.CalledProcessError as error:
        last = (error.stdout or "").strip().splitlines()[-1:]
        lacking(
            f"the arm64 root ({' '.join(last)})",
            "it needs a Debian 12 host and its package mirror, and the Python package index",
        )
        raise


def _project_files() -> list[Path]:
    """Every file that a wheel is made from."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, check=True).stdout
    names = [name for name in listed.decode().split("\0") if name]
    skipped = ("tests/", "docs/", "tools/", ".")
    paths = (PROJECT / name for name in sorted(names) if not name.startswith(skipped))
    return [path for path in paths if os.path.lexists(path)]


def _forget_old_wheels(days: float = 2.0) -> None:
    for old in cache_folder().glob("wheel-*"):
        if time.time() - old.stat().st_mtime > days * 86400:
            if old.is_dir():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.unlink(missing_ok=True)


@cache
def project_wheel() -> Path:
    """The project's own wheel, built from the working tree and kept by content."""
    files = _project_files()
    digest = hashlib.sha256()
    for path in files:
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        digest.update(f"{path.relative_to(PROJECT)}\0{len(content)}\0".encode() + content)

    def make(folder: Path) -> None:
        _forget_old_wheels()
        with tempfile.TemporaryDirectory(prefix="wheel-source-") as name:
            for path in files:
                copy = Path(name) / path.relative_to(PROJECT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy, follow_symlinks=False)
            options = ["-q", "--no-deps", "--no-build-isolation"]
            _run([*PIP, "wheel", *options, "-w", str(folder), name])

    return next(_made_once(f"wheel-{digest.hexdigest()[:20]}", make).glob("*.whl"))


@cache
def project_site() -> Path:
    """The wheel unpacked: what ``pip install`` puts into site-packages (it is pure Python)."""
    wheel = project_wheel()

    def make(folder: Path) -> None:
        shutil.unpack_archive(wheel, folder, "zip")

    return _made_once(f"{wheel.parent.name}-site", make)


def arm64_command(*arguments: str | Path, cpu: str = "max") -> list[str]:
    """The command line that runs the arm64 Python with ``arguments``."""
    root = arm64_root()
    command: list[str | Path] = ["qemu-aarch64", "-cpu", cpu, "-L", root, root / PYTHON]
    return [str(part) for part in (*command, *arguments)]


def arm64_environment(**extra: str) -> dict[str, str]:
    """Its environment: NumPy and this project on the path, nothing of the host's Python."""
    path = f"{project_site()}:{arm64_root() / 'opt' / 'site'}"
    # Safe path: the tests' working folder is a checkout, and it must not stand in for the wheel.
    fixed = {"PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1", "LC_ALL": "C.UTF-8"}
    return {**fixed, "PYTHONPATH": path, **extra}


def run_arm64(
    *arguments: str | Path, cpu: str = "max", timeout: float = 300, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run the arm64 Python; ``extra`` are environment variables. Check ``returncode`` yourself."""
    return subprocess.run(
        arm64_command(*arguments, cpu=cpu),
        env=arm64_environment(**extra),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
