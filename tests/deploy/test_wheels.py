"""One file, ``pip install``, and ``Localizer().query(frame)`` answers: on x86 and on arm64."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.arm64 import arm64_command, arm64_root
from support.interpreters import find_interpreter
from support.tools import require_tool

pytestmark = pytest.mark.slow

ASK = """
import hashlib, json, platform, sys
import numpy as np
from tatvpr_edge.runtime import Localizer, MapError, demo_map
frame = np.random.default_rng(3).integers(0, 256, (90, 120, 3)).astype(np.uint8)
with Localizer() as localizer:
    try:
        localizer.query(frame)
    except MapError as error:
        refused = str(error)
with Localizer(map=demo_map()) as localizer:
    match = localizer.query(frame)
    descriptor = localizer.describe(frame)
loaded = {name.split(".")[0] for name in sys.modules}
print(json.dumps({"machine": platform.machine(), "tag": match.tag, "score": match.score,
                  "refused": refused,
                  "descriptor": hashlib.sha256(descriptor.tobytes()).hexdigest(),
                  "heavy": sorted(loaded & {"torch", "onnx", "tvm", "onnxruntime", "click"})}))
"""


@pytest.fixture(scope="module")
def wheels(
    build_cache: Path, project_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Both platform wheels, made as ``make wheels`` does."""
    require_tool("gcc", "gcc")
    require_tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    output = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, str(project_root / "tools" / "make_wheels.py")]
    done = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    made = {path.stem.split("_", 4)[-1]: path for path in output.glob("*.whl")}
    assert sorted(made) == ["aarch64", "x86_64"], sorted(output.iterdir())
    return made


def installed(wheel: Path, folder: Path) -> Path:
    """What ``pip install`` of the wheel puts into site-packages."""
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(folder)]
    machine = wheel.stem.split("_", 4)[-1]
    if machine != os.uname().machine:
        options += ["--platform", wheel.stem.split("-")[-1], "--only-binary=:all:"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options, wheel],
        check=True,
    )
    return folder


def test_a_wheel_lists_every_file_with_its_hash(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            record = next(name for name in names if name.endswith(".dist-info/RECORD"))
            rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
            assert sorted(row[0] for row in rows) == sorted(names)
            for name, digest, size in rows:
                if name != record:
                    data = archive.read(name)
                    made = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
                    assert (digest, int(size)) == ("sha256=" + made.decode(), len(data))
            about = archive.read(record.replace("RECORD", "WHEEL")).decode()
            assert f"Tag: {'-'.join(wheel.stem.split('-')[2:])}\n" in about
            assert "Root-Is-Purelib: false" in about
            inside = "tatvpr_edge/runtime/embedded/"
            assert {inside + "artifact/manifest.json", inside + "demo.placemap"} <= set(names)


def test_one_file_answers_on_both_processors(wheels: dict[str, Path], tmp_path: Path) -> None:
    empty = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1"}
    numpy_folder = tmp_path / "numpy-only"
    numpy_folder.mkdir()
    site = Path(np.__file__).resolve().parent.parent
    for name in ("numpy", "numpy.libs"):
        if (site / name).exists():
            (numpy_folder / name).symlink_to(site / name)
    answers: dict[str, Any] = {}
    for machine in ("x86_64", "aarch64"):
        place = installed(wheels[machine], tmp_path / machine)
        if machine == "x86_64":
            command, packages = [sys.executable, "-S", "-c", ASK], numpy_folder
        else:
            command, packages = arm64_command("-c", ASK), arm64_root() / "opt" / "site"
        done = subprocess.run(
            command,
            env={**empty, "PYTHONPATH": f"{place}:{packages}"},
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        answers[machine] = json.loads(done.stdout)
        assert answers[machine].pop("machine") == machine
    assert answers["x86_64"] == answers["aarch64"]
    # The demo's places are no answer to a robot that has no map.
    assert "there is no map to search" in answers["x86_64"]["refused"]
    assert answers["x86_64"]["heavy"] == [] and answers["x86_64"]["tag"]


#: Python, and the NumPy that its system brings (JetPack 6 has 1.21), which has to stay.
PYTHONS = {"3.10": "1.21.6", "3.11": None, "3.12": None, "3.13": None}


@pytest.mark.parametrize("version", PYTHONS)
def test_pip_installs_the_wheel_on_every_python_of_a_board(
    wheels: dict[str, Path], tmp_path: Path, version: str
) -> None:
    python = find_interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine: its wheel was not tried")
    environment = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", environment], check=True)
    program = environment / "bin" / "python"
    pip = [program, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    pip.append("--no-compile")  # few of its modules are imported once
    numpy = PYTHONS[version]
    if numpy is not None:
        subprocess.run([*pip, f"numpy=={numpy}"], check=True, timeout=600)
    subprocess.run([*pip, f"{wheels[os.uname().machine]}[cli]"], check=True, timeout=600)
    ask = ASK + "assert np.__version__ == sys.argv[1] or sys.argv[1] == 'any', np.__version__\n"
    done = subprocess.run(
        [program, "-c", ask, numpy or "any"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tag"]
    listed = subprocess.run(
        [environment / "bin" / "tatvpr-edge", "boards"], capture_output=True, text=True
    )
    assert listed.returncode == 0 and "jetson-orin-nano" in listed.stdout, listed.stderr
