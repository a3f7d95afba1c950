"""The kernel variant that runs is the one that was measured to be fastest on this machine."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.library import Library
from tatvpr_edge.runtime.variants import cpu_identity, golden_frame, measure, remembered_at
from tatvpr_edge.spec.artifact import Artifact, read_artifact

U8 = NDArray[np.uint8]


@pytest.fixture
def artifact(tiny_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """An artifact on a machine that has never loaded it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return read_artifact(tiny_host)


@pytest.fixture
def timed(artifact: Artifact) -> list[str]:
    """The variants that are worth a measurement here."""
    names = Library.of(artifact, kernels="portable").usable_kernels()[:-1]
    if len(names) < 2:
        pytest.skip("this processor runs one variant beside plain C: there is nothing to choose")
    return list(names)


def used(root: Path, **arguments: str) -> str:
    """The variant of a new Localizer."""
    with Localizer(root, **arguments) as localizer:
        return str(localizer.backend.library.kernels)  # type: ignore[attr-defined]


def test_the_first_load_measures_and_the_next_remembers(
    artifact: Artifact, timed: list[str], frames: U8
) -> None:
    place = remembered_at(artifact)
    with Localizer(artifact.root, kernels="portable") as forced:
        wanted = forced.describe(frames[0]).tobytes()
    assert not place.exists()  # a forced variant measures nothing
    with Localizer(artifact.root) as first:
        assert first.describe(frames[0]).tobytes() == wanted
    document = json.loads(place.read_text())
    seconds = document["cpu_seconds"]
    assert sorted(seconds) == sorted(timed)
    assert document["kernels"] == min(seconds, key=seconds.get)
    assert used(artifact.root) == document["kernels"]
    for name in timed:  # what is remembered is believed, not measured again
        place.write_text(json.dumps({"kernels": name}))
        assert used(artifact.root) == name
        assert used(artifact.root, kernels="portable") == "portable"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kernels": "sse2"}', '{"kernels": 7}'])
def test_what_cannot_be_meant_is_measured_again(
    artifact: Artifact, timed: list[str], text: str
) -> None:
    place = remembered_at(artifact)
    place.parent.mkdir(parents=True)
    place.write_text(text)
    assert used(artifact.root) in timed
    assert json.loads(place.read_text())["kernels"] in timed


def test_a_home_that_cannot_be_written_costs_one_line(
    artifact: Artifact,
    timed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "tatvpr_edge"):
        assert used(artifact.root) in timed
    (line,) = [record.getMessage() for record in caplog.records]
    assert "cannot be written" in line and "\n" not in line


def test_a_model_that_is_too_slow_to_measure_takes_the_first(
    artifact: Artifact, timed: list[str]
) -> None:
    library = Library.of(artifact, kernels="portable")
    assert measure(library, golden_frame(artifact), timed, limit_s=0.0) == {}
    assert sorted(measure(library, golden_frame(artifact), timed)) == sorted(timed)


def test_another_processor_is_another_measurement(artifact: Artifact, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    core = "processor : {}\nBogoMIPS : {}\nCPU implementer : 0x41\nCPU part : {}\n\n"
    told = []
    for cores in ((("0xd05", 1), ("0xd0b", 2)), (("0xd05", 5), ("0xd0b", 9)), (("0xd05", 1),)):
        cpuinfo.write_text("".join(core.format(i, *c[::-1]) for i, c in enumerate(cores)))
        told.append(cpu_identity(str(cpuinfo)))
    assert told[0] == told[1] != told[2]  # kinds of cores count, not numbers or frequencies
    places = {remembered_at(artifact, cpu=text) for text in told}
    assert len(places) == 2


def test_the_health_check_fills_it(artifact: Artifact, timed: list[str]) -> None:
    from tatvpr_edge.runtime.verify import verify_artifact

    verify_artifact(artifact.root)
    assert json.loads(remembered_at(artifact).read_text())["kernels"] in timed
