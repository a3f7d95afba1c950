"""The README's own lines, in its order, in an empty folder, from the wheel, with own frames.

A newcomer changes two words of them: the board's name, which is this machine's here, and
``user@board``, which a real sshd on loopback answers as the login that runs these tests, with a
home of its own and a Python that has NumPy alone.

The environment is fresh and the project in it is the wheel's. Its dependencies are taken from the
environment that runs the tests, through a ``.pth`` file: 2 GB need not be fetched again to know
that our own lines work (``tests/deploy/test_wheels.py`` has pip fetch a board's).
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.artifacts import scenes
from support.board import running_sshd
from support.tools import require_tool

pytestmark = pytest.mark.slow

PLACES = 6
#: Blocks of README that are for a clone of the project, not for an installed wheel.
CLONE = "make "
#: What the README's program is given: it says ``frame`` and means the newcomer's camera.
CAMERA = "from tatvpr_edge import read_frame\nframe = read_frame('frames/place2.png')\n"


@dataclass(frozen=True)
class Newcomer:
    """An empty folder and the environment in which lines are typed."""

    folder: Path
    environment: dict[str, str]

    def types(self, line: str) -> str:
        """Run a line as a shell does; what it printed."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the project's wheel; its ``bin``."""
    folder = tmp_path_factory.mktemp("wheel")
    make = [sys.executable, project_root / "tools" / "make_wheels.py", "--plain"]
    subprocess.run([*make, "--output", folder], check=True, timeout=600)
    (wheel,) = folder.glob("tatvpr_edge-*.whl")
    environment = tmp_path_factory.mktemp("newcomer") / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=300)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True, timeout=300)
    (site,) = environment.glob("lib/python*/site-packages")
    # A plain path: the editable project of that folder is not followed, so the wheel's is found.
    (site / "dependencies.pth").write_text(f"{Path(np.__file__).resolve().parent.parent}\n")
    where = [python, "-c", "import tatvpr_edge; print(tatvpr_edge.__file__)"]
    found = subprocess.run(where, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(site)
    return environment / "bin"


@pytest.fixture(scope="module")
def newcomer(
    installed: Path, build_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Newcomer]:
    """A folder that holds ``frames`` alone, and a board to log in to."""
    require_tool("gcc", "gcc")
    base = tmp_path_factory.mktemp("home")
    (base / "home").mkdir()
    folder = base / "empty"
    (folder / "frames").mkdir(parents=True)
    for number, scene in enumerate(scenes(PLACES)):
        Image.fromarray(scene).save(folder / "frames" / f"place{number}.png")
    rows = [f"place{number}.png,{10 * number},0" for number in range(PLACES)]
    (folder / "frames" / "poses.csv").write_text("\n".join(["name,x,y", *rows]))

    board = base / "board"
    programs = board / "bin"
    packages = board / "packages"
    for made in (programs, packages):
        made.mkdir(parents=True)
    site = Path(np.__file__).resolve().parent.parent
    for name in ("numpy", "numpy.libs"):
        if (site / name).exists():
            (packages / name).symlink_to(site / name)
    write_program(
        programs / "python3",
        f'PYTHONPATH="$PYTHONPATH:{packages}" exec {shlex.quote(sys.executable)} -S "$@"',
    )
    login = board / "login"
    write_program(
        login,
        f"unset PYTHONPATH TATVPR_EDGE_ROOT; HOME={board}; PATH={programs}:$PATH\n"
        f'export HOME PATH; cd\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"',
    )
    with running_sshd(base / "etc", str(login)) as sshd:
        # What a newcomer has in ~/.ssh/config.
        config = base / "etc" / "newcomer"
        address = f"Host board\n  HostName 127.0.0.1\n  Port {sshd.port}\n"
        config.write_text(address + sshd.config.read_text())
        ssh = require_tool("ssh", "openssh-client")
        write_program(base / "bin" / "ssh", f'exec {ssh} -F {config} "$@"')
        environment = {
            "HOME": str(base / "home"),
            "PATH": f"{base / 'bin'}:{installed}:{os.environ['PATH']}",
            # Objects that the suite compiled already are compiled once.
            "XDG_CACHE_HOME": str(build_cache),
            "LANG": "C.UTF-8",
        }
        yield Newcomer(folder, environment)


def write_program(path: Path, text: str) -> None:
    """A shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def blocks(readme: str) -> list[tuple[str, str]]:
    """(language, text) of the README's fenced blocks that somebody types, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.M | re.S)
    commands = [(language, text) for language, text in found if not text.startswith(CLONE)]
    return [(s, t) for s, t in commands if s == "python" or t.startswith("tatvpr-edge")]


def artifact_is_there(newcomer: Newcomer, shown: str) -> None:
    assert (newcomer.folder / "artifact" / "manifest.json").is_file()


def map_is_there(newcomer: Newcomer, shown: str) -> None:
    assert f"{PLACES} places" in shown
    assert (newcomer.folder / "office.placemap").is_file()


def board_has_both(newcomer: Newcomer, shown: str) -> None:
    told = newcomer.types(f"tatvpr-edge status {getpass.getuser()}@board")
    assert "micro" in told and "map" in told, told


def report_is_there(newcomer: Newcomer, shown: str) -> None:
    (report,) = newcomer.folder.rglob("report.html")
    assert "<h1>micro" in report.read_text()


#: What has come about after a line, by how it begins.
OUTCOMES: dict[str, Callable[[Newcomer, str], None]] = {
    "tatvpr-edge build ": artifact_is_there,
    "tatvpr-edge map build ": map_is_there,
    "tatvpr-edge deploy ": board_has_both,
    "tatvpr-edge profile ": report_is_there,
}


def test_every_line_of_the_readme_works_in_its_order(
    newcomer: Newcomer, project_root: Path
) -> None:
    asked = False
    left = dict(OUTCOMES)
    for language, text in blocks((project_root / "README.md").read_text()):
        if language == "python":
            (newcomer.folder / "robot.py").write_text(CAMERA + text)
            shown = newcomer.types("python robot.py")
            tag = re.match(r"(\d+) ", shown)
            assert tag is not None and int(tag[1]) == 2, shown
            asked = True
            continue
        for line in text.strip().splitlines():
            typed = line.replace("jetson-orin-nano", "host")
            typed = typed.replace("user@board", f"{getpass.getuser()}@board")
            shown = newcomer.types(typed)
            begins = next((known for known in left if line.startswith(known)), None)
            assert begins is not None, f"{line}: nothing here says what comes of it"
            left.pop(begins)(newcomer, shown)
    assert asked and not left
