"""Fixtures of the deploy tests, and the count of faults at the end of the run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.board import (
    DESCRIPTOR,
    Sshd,
    live_content,
    local_transport,
    make_artifact,
    make_wheel,
    quick_options,
    running_sshd,
)
from support.board_maps import Board, places
from support.faults import Faults
from support.serving import FRAME, make_map, serving
from tatvpr_edge.deploy.push import Options, deploy
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.placemap import Band, MapInfo, write_map


class BoardFaults(Faults):
    """Counts faults, and the boards that were whole after them."""

    def check(self, root: Path, allowed: set[str | None], what: object) -> str | None:
        """One fault was injected: the live release below ``root`` is whole and one of
        ``allowed``."""
        live = live_content(root)
        self.count("deploy", live in allowed, what)
        return live


@pytest.fixture
def faults(record_property: Callable[[str, Any], None]) -> Iterator[BoardFaults]:
    """Counts the test's faults for the summary."""
    count = BoardFaults()
    yield count
    count.record(record_property)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real sshd on loopback, ended by its pid."""
    with running_sshd(tmp_path_factory.mktemp("sshd") / "etc") as board:
        yield board


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with the small runtime of :mod:`support.board`."""
    return make_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def served(
    tiny_host: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Localizer]]:
    """A socket that is served, and the same Localizer in this process."""
    # A socket address holds 108 bytes; install roots can be longer.
    folder = tmp_path_factory.mktemp("long") / ("deep" * 20) / ("er" * 40)
    folder.mkdir(parents=True)
    with Localizer(tiny_host) as plain:
        descriptors = np.stack([plain.describe(np.roll(FRAME, 7 * i, 0)) for i in range(5)])
        model = plain.artifact.manifest.model
        places = make_map(folder / "places.placemap", model.hash, descriptors)
    words = ["--artifact", str(tiny_host), "--map", str(places)]
    with serving(folder / "s.sock", *words), Localizer(tiny_host, places) as localizer:
        yield folder / "s.sock", localizer


@pytest.fixture
def pair(ram_path: Path) -> tuple[Artifact, Artifact]:
    """An old artifact and a new one."""
    return make_artifact(ram_path / "old", b"old"), make_artifact(ram_path / "new", b"new")


@pytest.fixture
def fresh(
    ram_path: Path, wheel: Path, pair: tuple[Artifact, Artifact]
) -> Callable[[], tuple[Path, Options]]:
    """Makes boards on which the old artifact is live."""
    template = ram_path / "template"
    deploy(local_transport(), pair[0], None, quick_options(template, wheel))
    numbers = iter(range(10_000))

    def make() -> tuple[Path, Options]:
        root = ram_path / f"board{next(numbers)}"
        shutil.copytree(template, root, symlinks=True)
        return root, quick_options(root, wheel, settle_s=0.0)

    return make


@pytest.fixture
def hall(ram_path: Path) -> Callable[[Artifact], Path]:
    """Makes a map of three places for an artifact's model."""

    def make(artifact: Artifact) -> Path:
        info = MapInfo(artifact.manifest.model.hash, "int8", DESCRIPTOR, (Band(1.0),))
        write_map(ram_path / "hall.placemap", info, [places(info, 3)])
        return ram_path / "hall.placemap"

    return make


@pytest.fixture
def board(ram_path: Path, wheel: Path, hall: Any) -> Board:
    """A board on which ``first`` is live with a map."""
    options = quick_options(ram_path / "root", wheel)
    first = make_artifact(ram_path / "first")
    deploy(local_transport(), first, hall(first), options)
    return ram_path / "root", options
