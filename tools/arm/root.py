"""An arm64 Linux to run under ``qemu-aarch64``: Debian's Python and NumPy's wheel.

Nothing is installed on the host. The root (about 110 MB) is made once from Debian's packages and
kept in ``~/.cache/tatvpr-edge-tests`` (``TATVPR_CACHE`` names another place). No chroot and no
binfmt: an arm64 program that starts another one has to start ``qemu-aarch64`` itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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


def made_once(name: str, make: Callable[[Path], None]) -> Path:
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


def run(command: Sequence[str | Path], **options: object) -> None:
    """Run quietly; CalledProcessError holds what was printed."""
    subprocess.run(
        [str(part) for part in command],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        **options,  # type: ignore[call-overload]
    )


def make_root(root: Path) -> None:
    """Unpack Debian's arm64 packages and NumPy into ``root``."""
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
        run([*command, "update"])
        run([*command, "--no-install-recommends", "--download-only", "install", *PACKAGES])
        for package in sorted((apt / "cache" / "archives").glob("*.deb")):
            run(["dpkg", "-x", package, root])
        unpack_wheel(NUMPY, root / "opt" / "site")


def unpack_wheel(requirement: str, target: Path) -> None:
    """The aarch64 wheel of ``requirement``, such as "numpy==2.2.6", without what it depends on."""
    wanted = ["--only-binary=:all:", "--python-version", "3.11"]
    for platform in ("manylinux2014_aarch64", "manylinux_2_28_aarch64"):
        wanted += ["--platform", platform]
    with tempfile.TemporaryDirectory(prefix="arm64-wheels-") as wheels:
        run([*PIP, "download", "-q", "--no-deps", *wanted, "-d", wheels, requirement])
        for wheel in Path(wheels).glob("*.whl"):
            shutil.unpack_archive(wheel, target, "zip")


def root_folder() -> Path:
    """The root, made where it does not lie in the cache.

    Raises:
        subprocess.CalledProcessError: it cannot be made: it needs a Debian 12 host and its package
            mirror, and the Python package index.
    """
    return made_once(f"arm64-root-{_LAYOUT}", make_root)


def guest_command(
    root: Path, *arguments: str | Path, cpu: str = "max", options: Sequence[str] = ()
) -> list[str]:
    """The command line that runs the root's Python with ``arguments``; ``options`` are QEMU's."""
    command = ["qemu-aarch64", "-cpu", cpu, *options, "-L", root, root / PYTHON, *arguments]
    return [str(part) for part in command]
