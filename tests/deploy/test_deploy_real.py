"""The shipped model on real boards' terms: built, deployed over SSH, queried there, rolled back.

Two boards behind a real sshd: this machine with a bare Python, and arm64 Debian under
``qemu-aarch64``, where the cross-built library really runs. Neither has tatvpr-edge installed.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.arm64 import PYTHON, arm64_root
from support.board import Sshd, running_sshd
from support.tools import require_tool
from tatvpr_edge.cli import main
from tatvpr_edge.compilers.build import build_artifact
from tatvpr_edge.deploy.push import Options, deploy, rollback, status
from tatvpr_edge.mapping import read_frame
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import MapError

pytestmark = pytest.mark.slow

PLACES = 12
ASK = """
import hashlib, json, platform, sys
import numpy as np
from tatvpr_edge import runtime
height, width = (int(side) for side in sys.argv[1:])
frame = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(height, width, 3)
with runtime.Localizer(k=0.2) as localizer:
    match = localizer.query(frame)
    descriptor = localizer.describe(frame)
print(json.dumps({"machine": platform.machine(), "tag": match.tag, "score": match.score,
                  "descriptor": hashlib.sha256(descriptor.tobytes()).hexdigest(),
                  "runtime": runtime.__file__}))
"""


@dataclass
class Board:
    """A board: its kind for the builder, its sshd, and where its Python comes from."""

    kind: str
    machine: str
    sshd: Sshd


def bare_python(folder: Path) -> str:
    """A program that runs this Python with NumPy and nothing else of its packages."""
    packages = folder / "packages"
    packages.mkdir(parents=True)
    site = Path(np.__file__).resolve().parent.parent
    for name in ("numpy", "numpy.libs"):
        if (site / name).exists():
            (packages / name).symlink_to(site / name)
    return f'PYTHONPATH="$PYTHONPATH:{packages}" exec {shlex.quote(sys.executable)} -S "$@"'


def arm64_python() -> str:
    """A program that runs Debian's arm64 Python under qemu."""
    root = arm64_root()
    emulator = require_tool("qemu-aarch64", "qemu-user")
    return (
        f'PYTHONPATH="$PYTHONPATH:{root}/opt/site" exec {emulator} -cpu cortex-a76 '
        f'-L {root} {root}/{PYTHON} "$@"'
    )


@pytest.fixture(scope="module", params=["x86_64", "aarch64"])
def board(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board whose ``python3`` is another one than ours, by a login that changes the PATH."""
    folder = tmp_path_factory.mktemp(request.param)
    run = bare_python(folder) if request.param == "x86_64" else arm64_python()
    programs = folder / "bin"
    programs.mkdir()
    (programs / "python3").write_text(f"#!/bin/sh\n{run}\n")
    login = folder / "login"
    login.write_text(
        f'#!/bin/sh\nunset PYTHONPATH\nPATH="{programs}:$PATH"; export PATH\n'
        'exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    for program in (programs / "python3", login):
        program.chmod(0o755)
    kind = "host" if request.param == "x86_64" else "raspberry-pi-5"
    with running_sshd(folder / "etc", str(login)) as sshd:
        yield Board(kind, request.param, sshd)


@pytest.fixture(scope="module")
def host_artifact(build_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``micro`` for this machine."""
    made = build_artifact("host", output=tmp_path_factory.mktemp("host") / "micro")
    assert isinstance(made, Path)
    return made


@pytest.fixture(scope="module")
def place_map(
    host_artifact: Path, project_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A map of some shipped places, made on this machine."""
    folder = tmp_path_factory.mktemp("places")
    gallery = sorted((project_root / "models/zoo/places/gallery").glob("*.jpg"))[:PLACES]
    for picture in gallery:
        shutil.copy(picture, folder)
    made = folder / "places.placemap"
    command = ["map", "build", str(folder), "--artifact", str(host_artifact), "-o", str(made)]
    assert main(command) == 0
    return made


def ask(board: Board, root: Path, frame: Any) -> dict[str, Any]:
    """Query on the board, through SSH, as a program of its own."""
    python = shlex.quote(str(root / "current" / "python"))
    command = f"{python} -c {shlex.quote(ASK)} {frame.shape[0]} {frame.shape[1]}"
    done = subprocess.run(
        ["ssh", "-F", board.sshd.config, "-p", str(board.sshd.port), "127.0.0.1", command],
        input=frame.tobytes(),
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_deploy_query_deploy_again_rollback_status(
    request: pytest.FixtureRequest,
    board: Board,
    host_artifact: Path,
    place_map: Path,
    project_root: Path,
    tmp_path: Path,
) -> None:
    if board.kind == "host":
        artifact = host_artifact
    else:
        require_tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
        made = build_artifact(board.kind, model="micro", output=tmp_path / "micro")
        assert isinstance(made, Path)
        artifact = made
    other = request.getfixturevalue("tiny_host" if board.kind == "host" else "tiny_arm64")
    assert read_artifact(artifact).manifest.code.triple.startswith(board.machine)

    root = tmp_path / "install root"
    options = Options(root=str(root), settle_s=0.2, golden_s=600, health_s=120)
    transport = board.sshd.transport()
    with pytest.raises(MapError, match="another model"):
        deploy(transport, other, place_map, options)
    first = deploy(transport, other, None, options)
    assert first.changed and first.health["golden"][0]["identical"]
    second = deploy(transport, artifact, place_map, options)
    assert second.before == first.release and second.health["golden"][0]["identical"]
    # The runtime was there already: what is sent is the agent and the artifact.
    assert second.reused_bytes > 0

    query = sorted((project_root / "models/zoo/places/queries").glob("*.jpg"))[0]
    frame = read_frame(query)
    with Localizer(host_artifact, place_map, k=0.2) as here:
        expected = here.query(frame)
        descriptor = hashlib.sha256(here.describe(frame).tobytes()).hexdigest()
    there = ask(board, root, frame)
    assert there["machine"] == board.machine
    assert (there["tag"], there["score"]) == (expected.tag, expected.score)
    assert there["descriptor"] == descriptor, "the board's bytes differ from this machine's"
    assert there["runtime"].startswith(str(root.resolve())), "not the runtime that travelled along"

    if board.kind == "host":  # emulated, the golden vectors take too long to run them again
        again = deploy(transport, artifact, place_map, options)
        assert not again.changed and again.sent_bytes < 64_000
        print(f"\nsecond deploy of the same artifact: {again.sent_bytes} bytes sent")
    assert rollback(transport, None, options).release == first.release
    found = status(transport, options, check=True)
    assert found["machine"] == board.machine
    assert (found["live"], found["previous"]) == (first.release, second.release)
    assert [release["fault"] for release in found["releases"]] == [None, None]


@pytest.mark.parametrize("board", ["aarch64"], indirect=True)
def test_the_gpu_half_is_finished_on_the_board(
    board: Board, tiny_onnx: Path, tmp_path: Path
) -> None:
    """Without a GPU, as here, one line says so and the CPU library of the artifact is live."""
    made = build_artifact(
        "jetson-orin-nano", model=str(tiny_onnx), backend="tensorrt", output=tmp_path / "artifact"
    )
    assert isinstance(made, Path)
    events: list[dict[str, Any]] = []
    options = Options(root=str(tmp_path / "root"), settle_s=0.2, golden_s=600, health_s=120)
    done = deploy(board.sshd.transport(), made, None, options, events.append)
    steps = [event["name"] for event in events if event.get("event") == "step"]
    assert steps.index("golden") < steps.index("finish") < steps.index("switch")
    assert any("the CPU library answers" in line for line in done.warnings), done.warnings
    assert done.changed and done.health["golden"][0]["identical"]
