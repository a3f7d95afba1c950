"""What a program imports: names, types, a stand-in for tests, objects that cross processes."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import os
import pickle
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tatvpr_edge
from tatvpr_edge import runtime
from tatvpr_edge.runtime import (
    FakeLocalizer,
    FrameError,
    Localizer,
    MapError,
    UsageError,
    names,
)
from tatvpr_edge.runtime.telemetry import Sampler
from tatvpr_edge.spec import errors

U8 = NDArray[np.uint8]

PROGRAM = """\
from pathlib import Path
import numpy as np
import tatvpr_edge
from tatvpr_edge import runtime

def where(folder: Path, frame: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> str:
    with runtime.Localizer(folder, map="office.placemap", k=0.2) as localizer:
        match: runtime.Match = localizer.query(frame)
        same: tatvpr_edge.Match = match
        return f"{match.tag} {same.score:.2f}"

artifact: Path = tatvpr_edge.build("host", model="micro")
needed: int | None = tatvpr_edge.plan("stm32h7").arena_bytes
"""


@pytest.fixture(scope="module")
def installed(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds our wheel and NumPy, as a user's does."""
    folder = tmp_path_factory.mktemp("user")
    command = [sys.executable, str(project_root / "tools" / "make_wheels.py"), "--plain"]
    subprocess.run([*command, "--output", str(folder)], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv" / "lib").glob("python3.*/site-packages")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    (site / "numpy").symlink_to(Path(np.__file__).parent)
    return folder / "venv" / "bin" / "python"


def check_types(program: str, folder: Path, python: Path) -> str:
    """What ``mypy --strict`` says of a user's program, away from the project's own settings."""
    (folder / "robot.py").write_text(program)
    options = ["--strict", "--config-file", os.devnull, "--python-executable", str(python)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "robot.py"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.slow
def test_a_typed_program_sees_our_types(installed: Path, tmp_path: Path) -> None:
    assert "Success" in check_types(PROGRAM, tmp_path, installed)
    wrong = PROGRAM.replace("match.tag", "match.tagg").replace('build("host"', 'build("host", k=1')
    said = check_types(wrong, tmp_path, installed)
    assert 'has no attribute "tagg"' in said and 'Unexpected keyword argument "k"' in said


def test_every_error_that_a_device_raises_is_exported_with_the_rest() -> None:
    for name in runtime.__all__:
        assert getattr(runtime, name) is not None
    ours = {name for name in errors.__all__ if name in runtime.__all__}
    host_only = {"BoardError", "DataError", "ModelError", "ToolError"}
    assert ours == set(errors.__all__) - host_only


def test_the_package_exports_what_the_runtime_does() -> None:
    missing = set(runtime.__all__) - set(tatvpr_edge.__all__)
    assert not missing and set(tatvpr_edge.__all__) <= set(dir(tatvpr_edge))
    for name in set(runtime.__all__) - {"stream"}:  # the package's own reads pictures by Pillow
        assert getattr(tatvpr_edge, name) is getattr(runtime, name), name
    with pytest.raises(AttributeError, match="no attribute 'Localiser'"):
        tatvpr_edge.Localiser  # noqa: B018


@pytest.mark.parametrize("name", ["tatvpr_edge", "tatvpr_edge.runtime"])
def test_importing_the_package_loads_nothing_and_shows_every_name(name: str) -> None:
    code = (
        f"import sys, {name} as package; assert set(package.__all__) <= set(dir(package))\n"
        "assert not hasattr(package, 'Localiser'); print('numpy' in sys.modules)\n"
        f"from {name} import *; print(set(package.__all__) - set(globals()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "set()"]


def test_the_names_that_a_checker_of_types_sees_are_those_of_the_runtime() -> None:
    assert {name for name in vars(names) if name[0] != "_"} == set(runtime.__all__)


def test_a_build_without_its_packages_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'tvm' else real(name, *a)\n"
        "import tatvpr_edge; tatvpr_edge.build('host')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "building needs tvm" in done.stderr and "tatvpr-edge[build]" in done.stderr


# ---- across processes ------------------------------------------------------------------------


def _describe(localizer: Localizer, frame: U8) -> bytes:
    return localizer.describe(frame).tobytes()


def test_a_localizer_can_be_handed_to_a_spawned_process(localizer: Localizer, frames: U8) -> None:
    localizer.k, localizer.tokens = 0.6, 0.5
    wanted = localizer.describe(frames[2]).tobytes()
    copy = pickle.loads(pickle.dumps(localizer))
    assert (copy.k, copy.tokens) == (0.6, 0.5)
    assert copy.query(frames[2]).place == localizer.query(frames[2]).place
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_describe, (localizer, frames[2])) == wanted


def test_what_stays_with_its_process_says_what_to_do_in_another(
    tiny_host: Path, scene_map: Path, tmp_path: Path
) -> None:
    with (
        Localizer(tiny_host, map=scene_map) as localizer,
        Localizer(tiny_host, k="auto", preset="turbo") as governed,
        runtime.MapWriter(tmp_path / "m.placemap", localizer) as writer,
    ):
        held: dict[str, object] = {
            "PlaceMap(PATH)": localizer.map,
            "localizer.track()": localizer.track(),
            "MapWriter(PATH, artifact)": writer,
            "hand on the Localizer": governed.governor,
            "start another one there": Sampler(sources=[]),
        }
        for remedy, one in {**held, "opens its artifact": localizer.engine}.items():
            for take in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(UsageError) as refused:
                    take(one)  # type: ignore[operator]
                assert f" {type(one).__name__} belongs to" in str(refused.value)
                assert remedy in str(refused.value)
        # What holds nothing of the kind is handed on.
        match = localizer.query(np.zeros((8, 8, 3), np.uint8))
        assert repr(pickle.loads(pickle.dumps(match))) == repr(match)  # NaN equals nothing
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(str(pickle.loads(pickle.dumps(kind("why")))) == "why" for kind in kinds)


def test_a_home_folder_may_be_written_with_a_tilde(
    tiny_host: Path, scene_map: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "artifact").symlink_to(tiny_host)
    (tmp_path / "scenes.placemap").symlink_to(scene_map)
    with Localizer("~/artifact", map="~/scenes.placemap") as made:
        assert made.map is not None and len(made.map) == 12


# ---- the stand-in ----------------------------------------------------------------------------


def test_the_stand_in_has_every_method_of_a_localizer_with_its_arguments() -> None:
    for name, member in inspect.getmembers(Localizer):
        if name.startswith("_") or name in ("governor", "artifact", "backend", "engine", "map"):
            continue
        fake = inspect.getattr_static(FakeLocalizer, name, None)
        assert fake is not None or name == "descriptor_size", f"FakeLocalizer lacks {name}"
        if inspect.isfunction(member):
            assert list(inspect.signature(member).parameters) == list(
                inspect.signature(fake).parameters  # type: ignore[arg-type]
            ), name


def test_the_stand_in_answers_what_it_was_told_and_refuses_what_a_localizer_refuses() -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    pose = (1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    fake = FakeLocalizer([FakeLocalizer.match(7, tag="dock", pose=pose, accepted=True)])
    match = fake.query(frame)
    assert (match.place, match.tag, match.pose, match.accepted) == (7, "dock", pose, True)
    assert match.candidates[0].place == 7
    with pytest.raises(MapError, match="no answer left"):
        fake.query(frame)
    with pytest.raises(FrameError, match="uint8"):
        fake.query(frame.astype(np.float32))
    with pytest.raises(UsageError, match="k is 2"):
        fake.k = 2
    assert fake.add(frame, (1.0, 2.0), "dock", match=match, novelty=0.9).place == 0
    fake.confirm(match)
    assert (fake.added[0][1:], fake.confirmed) == (((1.0, 2.0), "dock"), [7])
    with pytest.raises(UsageError, match="novelty is 2"):
        fake.add(frame, novelty=2)
    with pytest.raises(MapError, match="pose of 1 numbers"):
        fake.add(frame, (1.0,))
    with pytest.raises(MapError, match="has length 0, not 1"):
        fake.add(frame, (1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(UsageError, match="preset 'slow' is unknown"):
        fake.preset = "slow"
    fake.budget, fake.preset = "5W", "turbo"
    assert fake.budget == runtime.Budget.parse("5W")
    with pytest.raises(UsageError, match="budget='5W' belongs to k=\"auto\""):
        FakeLocalizer(k=0.2, budget="5W")
    by_frame = FakeLocalizer(lambda frame: FakeLocalizer.match(int(frame[0, 0, 0])))
    assert by_frame.query(frame + 5).place == 5
    vector = fake.describe(frame)
    assert vector.shape == (256,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert (fake.describe(frame) == vector).all() and (fake.describe(frame + 1) != vector).any()
    assert not fake.closed
    fake.close()
    assert fake.closed
    with pytest.raises(AttributeError):
        fake.closed = False  # type: ignore[misc]
    with pytest.raises(UsageError, match="this Localizer is closed"):
        fake.describe(frame)
    for name, value in {"k": 0.2, "tokens": 0.5, "budget": "5W", "preset": "turbo"}.items():
        with pytest.raises(UsageError, match="this Localizer is closed"):
            setattr(fake, name, value)


def test_the_stand_in_goes_to_another_process_as_a_localizer_does() -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    for take in (lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy):
        fake = FakeLocalizer([FakeLocalizer.match(7)], k="auto", budget="5W")
        other = take(fake)
        assert (other.k, other.budget, other.query(frame).place) == ("auto", fake.budget, 7)
        other.k = 0.2
        other.close()
        with pytest.raises(UsageError, match="this Localizer is closed"):
            other.describe(frame)


def test_the_stand_in_is_governed_as_a_localizer_is(tiny_host: Path) -> None:
    """What the robot's own tests let pass ended the robot's program."""
    steps: list[tuple[str, Any, bool]] = [
        ("preset", None, False),
        ("budget", "40ms", True),
        ("preset", None, True),
        ("budget", None, False),
        ("k", 0.2, True),
        ("budget", None, True),
        ("k", "auto", False),
    ]
    for make in (partial(Localizer, tiny_host), FakeLocalizer):
        with pytest.raises(UsageError, match=r'k="auto" needs a budget such as .*"battery:2h"'):
            make(k="auto")
        with make(k="auto", preset="turbo") as localizer:
            for name, value, taken in steps:
                if taken:
                    setattr(localizer, name, value)
                    continue
                with pytest.raises(UsageError, match='k="auto" needs a budget'):
                    setattr(localizer, name, value)
            assert (localizer.k, localizer.budget, localizer.preset) == (0.2, None, None)


def test_the_version_is_stated_once() -> None:
    from importlib.metadata import version

    assert version("tatvpr-edge") == tatvpr_edge.__version__
