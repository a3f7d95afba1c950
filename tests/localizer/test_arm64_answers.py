"""The cross-built artifact under qemu-aarch64 (emulated): same place, same bytes as the host."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tatvpr_edge
from support.arm64 import project_wheel, run_arm64
from support.tools import require_tool
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.frame import check_frame

PROGRAM = """
import hashlib, json, sys, platform
import numpy as np
import tatvpr_edge
from tatvpr_edge import runtime
from tatvpr_edge.runtime.frame import check_frame

artifact, place_map, frames = sys.argv[1:4]
localizer = runtime.Localizer(artifact, place_map, k=0.2)
library = localizer.backend.library
answers = []
for frame in np.load(frames):
    for k, tokens in ((0.2, 1.0), (1.0, 1.0), (0.6, 0.5), (0.05, 1.0)):
        localizer.k, localizer.tokens = k, tokens
        match = localizer.query(frame)
        made = library.describe(check_frame(frame), k, tokens, want_tokens=True)
        answers.append({
            "place": match.place, "score": match.score,
            "descriptor": made.descriptor.tobytes().hex(),
            "tokens": hashlib.sha256(made.tokens.tobytes()).hexdigest(),
        })
print(json.dumps({"machine": platform.machine(), "package": tatvpr_edge.__file__,
                  "kernels": library.usable_kernels(), "answers": answers}))
"""


def host_answers(
    artifact: Path, place_map: Path, frames: NDArray[np.uint8]
) -> list[dict[str, Any]]:
    """What PROGRAM prints, computed here."""
    import hashlib

    answers = []
    with Localizer(artifact, place_map) as localizer:
        for frame in frames:
            for k, tokens in ((0.2, 1.0), (1.0, 1.0), (0.6, 0.5), (0.05, 1.0)):
                localizer.k, localizer.tokens = k, tokens
                match = localizer.query(frame)
                made = localizer.backend.library.describe(  # type: ignore[attr-defined]
                    check_frame(frame), k, tokens, want_tokens=True
                )
                answers.append(
                    {
                        "place": match.place,
                        "score": match.score,
                        "descriptor": made.descriptor.tobytes().hex(),
                        "tokens": hashlib.sha256(made.tokens.tobytes()).hexdigest(),
                    }
                )
    return answers


@pytest.fixture(scope="session")
def tiny_raspberry_pi_4(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model for a board without dot-product instructions."""
    require_tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    output = tmp_path_factory.mktemp("pi") / "artifact"
    built: Path = tatvpr_edge.build("raspberry-pi-4", model=tiny_onnx, output=output)
    return built


@pytest.mark.slow
@pytest.mark.parametrize(
    ("artifact", "cpu", "kernels"),
    [
        ("tiny_arm64", "cortex-a76", "neon-dotprod"),
        ("tiny_arm64", "cortex-a72", "neon"),
        ("tiny_raspberry_pi_4", "cortex-a72", "neon"),
    ],
)
def test_the_board_gives_the_hosts_bytes(
    request: pytest.FixtureRequest,
    tiny_host: Path,
    scene_map: Path,
    frames: NDArray[np.uint8],
    tmp_path: Path,
    artifact: str,
    cpu: str,
    kernels: str,
) -> None:
    """One library for every CPU of the architecture: an older one runs the variant that it has."""
    cross_built = request.getfixturevalue(artifact)
    np.save(tmp_path / "frames.npy", frames[:3])
    done = run_arm64("-c", PROGRAM, cross_built, scene_map, tmp_path / "frames.npy", cpu=cpu)
    assert done.returncode == 0, done.stderr
    board = json.loads(done.stdout)
    assert board["machine"] == "aarch64" and "-site" in board["package"]
    assert board["kernels"][0] == kernels and board["kernels"][-1] == "portable"
    assert board["answers"] == host_answers(tiny_host, scene_map, frames[:3])


@pytest.mark.slow
def test_the_board_verifies_its_golden_vectors(tiny_arm64: Path, tmp_path: Path) -> None:
    done = run_arm64("-m", "tatvpr_edge.runtime", "verify", tiny_arm64, "--json")
    assert done.returncode == 0, done.stderr
    golden = json.loads(done.stdout)["golden"]
    assert golden and all(result["identical"] for result in golden)


def test_the_library_is_an_aarch64_elf(tiny_arm64: Path) -> None:
    header = (tiny_arm64 / "lib" / "libtatvpr_model.so").read_bytes()[:20]
    assert header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == 183


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() == "aarch64", reason="this machine is the board")
def test_the_wheel_alone_is_enough_and_stays_light(tmp_path: Path) -> None:
    """Installed from its wheel, the runtime loads nothing but NumPy and the standard library."""
    wheel = project_wheel()
    import sys

    target = tmp_path / "site"
    options = ["--no-deps", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    program = (
        "import sys; from tatvpr_edge import runtime; print(runtime.__file__); print(sorted("
        "m for m in sys.modules if m.split('.')[0] in "
        "('torch','onnx','tvm','onnxruntime','click','rich','PIL')))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={"PYTHONPATH": str(target)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    file, modules = done.stdout.splitlines()
    assert modules == "[]"
    assert file.startswith(str(target))
