"""The arm64 Linux of ``tools/arm/root.py``, and our wheel in it, for tests."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from support.tools import lacking, require_tool

PROJECT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(PROJECT / "tools"))

from arm.root import (  # noqa: E402
    PIP,
    PYTHON,
    cache_folder,
    guest_command,
    made_once,
    root_folder,
    run,
)

__all__ = [
    "PYTHON",
    "arm64_command",
    "arm64_environment",
    "arm64_root",
    "project_wheel",
    "run_arm64",
]


@cache
def arm64_root() -> Path:
    """The root folder; the calling test is skipped (CI: fails) where it cannot be made."""
    require_tool("qemu-aarch64", "qemu-user")
    require_tool("apt-get", "apt")
    require_tool("dpkg", "dpkg")
    try:
        return root_folder()
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
            run([*PIP, "wheel", *options, "-w", str(folder), name])

    return next(made_once(f"wheel-{digest.hexdigest()[:20]}", make).glob("*.whl"))


@cache
def project_site() -> Path:
    """The wheel unpacked: what ``pip install`` puts into site-packages (it is pure Python)."""
    wheel = project_wheel()

    def make(folder: Path) -> None:
        shutil.unpack_archive(wheel, folder, "zip")

    return made_once(f"{wheel.parent.name}-site", make)


def arm64_command(*arguments: str | Path, cpu: str = "max") -> list[str]:
    """The command line that runs the arm64 Python with ``arguments``."""
    return guest_command(arm64_root(), *arguments, cpu=cpu)


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
