"""A damaged release does not end the robot: the one before it starts, and ``status`` says so."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.board import local_transport, quick_options, unit_of
from support.keys import Keys
from support.users import as_other_user
from tatvpr_edge.cli import main
from tatvpr_edge.deploy.disk import Disk
from tatvpr_edge.deploy.push import Options, deploy, revoke, status, trust
from tatvpr_edge.deploy.service import unit_text
from tatvpr_edge.deploy.store import Store
from tatvpr_edge.mapping import lean_map
from tatvpr_edge.runtime import Localizer, deployed, launch
from tatvpr_edge.runtime.client import Client
from tatvpr_edge.runtime.mapjournal import append, compact, read_map, rewrite
from tatvpr_edge.runtime.signing import sign_artifact
from tatvpr_edge.spec.artifact import replace_profile
from tatvpr_edge.spec.errors import ArtifactError, MapError, TatvprError
from tatvpr_edge.spec.manifest import seal
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

FRAME = np.random.default_rng(3).integers(0, 256, (40, 56, 3)).astype(np.uint8)
Board = tuple[Path, Options, str, str]


def profiled(source: Path, target: Path, name: str) -> Path:
    """A whole artifact like ``source``, and yet another one."""
    shutil.copytree(source, target)
    replace_profile(target, {"device": {"name": name}, "points": []})
    return target


def places_of(artifact: Path, path: Path, count: int = 5) -> Path:
    """A small map that this artifact made."""
    with Localizer(artifact, k=0.2) as localizer:
        rows = np.stack([localizer.describe(np.roll(FRAME, 7 * i, 0)) for i in range(count)])
        info = MapInfo(
            localizer.artifact.manifest.model.hash, "int8", rows.shape[1], (Band(0.2),), "local"
        )
    write_map(path, info, [make_places(info, [rows], tags=[f"place {i}" for i in range(count)])])
    return path


@pytest.fixture(scope="module")
def template(tiny_host: Path, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A board with two signed releases: what is live, and the one before it."""
    folder = tmp_path_factory.mktemp("template")
    options = quick_options(folder / "root", runtime="always", health_s=120.0)
    names = []
    for serial, name, key in ((100, "first", "second"), (200, "second", "ours")):
        artifact = profiled(tiny_host, folder / name, name)
        sign_artifact(artifact, keys.private(key), serial)
        places = places_of(artifact, folder / f"{name}.placemap")
        signing = replace(options, sign=keys.private(key))
        names.append(deploy(local_transport(), artifact, places, signing).release)
    return folder / "root", options, names[0], names[1]


@pytest.fixture
def board(template: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A copy of that board, which ``Localizer()`` looks at."""
    root = tmp_path / "root"
    shutil.copytree(template[0], root, symlinks=True)
    monkeypatch.setenv(deployed.ROOT_VARIABLE, str(root))
    return root, quick_options(root), template[2], template[3]


def flip(path: Path) -> None:
    """One bit of a file rots."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def running() -> str:
    """The release that ``Localizer()`` opens and answers with."""
    with Localizer() as localizer:
        assert localizer.query(FRAME).tag == "place 0"
        return localizer.artifact.root.parent.name


ROTTEN = (
    "artifact/weights.bin",
    "artifact/manifest.json",
    "map.placemap",
    "runtime/tatvpr_edge/runtime/search.py",
)


@pytest.mark.parametrize("rotten", ROTTEN)
def test_one_rotten_bit_starts_the_release_before_it(board: Board, rotten: str) -> None:
    root, options, first, second = board
    assert running() == second and status(local_transport(), options)["fallback"] is None
    path = root / "releases" / second / rotten
    whole = path.read_bytes()
    flip(path)
    for _ in range(2):  # and again at each start
        assert running() == first
    said = status(local_transport(), options)
    assert said["live"] == second, "a start changes nothing on the disk"
    assert said["fallback"]["runs"] == first and said["fallback"]["live"] == second
    path.write_bytes(whole)
    assert running() == second
    assert status(local_transport(), options)["fallback"] is None


@pytest.mark.parametrize("lost", [".", "artifact"])
def test_a_release_that_lost_a_folder_starts_the_one_before_it(board: Board, lost: str) -> None:
    """As a disk's check leaves it: nothing was said to be deployed, and what was built for this
    host was taken, or what our wheel carries."""
    root, options, first, second = board
    shutil.rmtree(root / "releases" / second / lost)
    assert running() == first
    said = status(local_transport(), options)["fallback"]
    assert said["runs"] == first and "no such folder" in said["why"]
    shutil.rmtree(root / "releases" / first)
    with pytest.raises(ArtifactError, match=rf"{second}/artifact is not an artifact: no such"):
        Localizer()


def test_a_release_that_may_not_be_looked_into_has_no_map() -> None:
    """It was `PermissionError`, also of a program that opens an artifact elsewhere."""
    with tempfile.TemporaryDirectory() as place:  # other users come as far as that
        root = Path(place)
        root.chmod(0o755)
        release = root / "releases" / "one"
        release.mkdir(parents=True)
        (root / "current").symlink_to("releases/one")
        with as_other_user(release):
            live = deployed.live_release(root)
        assert live is not None and (live.folder.name, live.map) == ("one", None)


@pytest.mark.parametrize("where", ["artifact/weights.bin", "runtime/tatvpr_edge/runtime/engine.py"])
def test_a_bad_block_starts_the_release_before_it(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    """An OSError ended both, and no runtime was said to be trusted."""
    root, _, first, second = board
    bad = str(root.resolve() / "releases" / second / where)

    def read(descriptor: int, most: int, real: Any = os.read) -> bytes:
        if os.path.realpath(f"/proc/self/fd/{descriptor}") == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return bytes(real(descriptor, most))

    monkeypatch.setattr(os, "read", read)
    assert running() == first
    if where.startswith("runtime"):
        assert launch.main([str(root / "current")]) == 0
        said = capsys.readouterr()
        assert f"/{first}/" in said.out and "Input/output error" in said.err


def test_the_service_starts_the_release_before_and_status_says_so(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _, first, second = board
    flip(root / "releases" / second / "artifact" / "weights.bin")
    words = [sys.executable, "-m", "tatvpr_edge.runtime", "serve", "--root", str(root)]
    words += ["--until-stdin-closes"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline().decode()
        assert f"/{first}/artifact" in line, process.stderr.read()
        with Client(root / "serve.sock") as client:
            assert client.query(FRAME).tag == "place 0"
        _, errors = process.communicate(b"", timeout=60)
    assert f"{first} is started instead" in errors.decode()
    assert main(["status", "local:", "--root", str(root), "--python", sys.executable]) == 0
    assert f"{first} was started instead, because" in capsys.readouterr().out


def rotten_runtime(release: Path, how: str) -> Path:
    """Damages the runtime of a release so that Python cannot import it; gives the file."""
    inside = release / "runtime" / "tatvpr_edge"
    path = inside / ("spec/errors.py" if how == "gone" else "runtime/__init__.py")
    data = path.read_bytes()
    path.write_bytes(
        {"zeros": bytes(len(data)), "cut": data[:-40], "bit": b"\xff" + data[1:]}.get(how, b"")
    )
    if how == "gone":
        path.unlink()
    return path


SAYS = "import sys; from tatvpr_edge.runtime import Localizer; print(Localizer().artifact.root)"


def by_its_python(root: Path) -> subprocess.CompletedProcess[str]:
    """A robot's program, run as the manual says."""
    words = ["sh", str(root / "current" / "python"), "-c", SAYS]
    return subprocess.run(words, capture_output=True, text=True, cwd=root)


@pytest.mark.parametrize("how", ["zeros", "cut", "bit", "gone"])
def test_a_runtime_that_python_cannot_import_gives_way_to_the_one_before(
    board: Board, how: str
) -> None:
    root, options, first, second = board
    assert f"/{second}/" in by_its_python(root).stdout
    path = rotten_runtime(root / "releases" / second, how)
    done = by_its_python(root)
    assert done.returncode == 0 and f"/{first}/" in done.stdout, done.stderr
    assert f"the runtime of {first} runs instead" in done.stderr and path.name in done.stderr
    said = status(local_transport(), options)
    assert said["live"] == second and said["fallback"]["runs"] == first
    assert path.name in said["fallback"]["why"]


@pytest.mark.parametrize("rots", ["runtime", "script", "script and start", "all"])
def test_the_unit_starts_beside_a_release_that_rotted(board: Board, rots: str) -> None:
    root, options, first, second = board
    if rots == "all":
        shutil.rmtree(root / "releases" / second)
    elif rots == "runtime":
        rotten_runtime(root / "releases" / second, "zeros")
    else:
        script = root / "releases" / second / "python"
        script.write_bytes(script.read_bytes().replace(b"exec ", b"eyec "))
        assert by_its_python(root).returncode != 0, "the script is of no use any more"
    if rots.endswith("start"):
        (root / "releases" / second / "start").write_bytes(bytes(1000))
    text = unit_text(str(root), [sys.executable])
    environment, words = unit_of(text)
    (folder,) = re.findall("^WorkingDirectory=(.*)$", text, re.MULTILINE)
    if folder.startswith("-") and not os.path.isdir(folder[1:]):
        folder = "-/"  # systemd.exec(5)
    with subprocess.Popen(
        [*words, "--until-stdin-closes"],
        env=environment,
        cwd=folder.removeprefix("-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert f"/{first}/artifact" in process.stdout.readline().decode()
        if rots in ("runtime", "all"):  # its runtime, not one that this Python has
            assert os.readlink(f"/proc/{process.pid}/cwd") == str(root / "releases" / first)
        with Client(root / "serve.sock") as client:
            assert client.query(FRAME).tag == "place 0"
        process.communicate(b"", timeout=60)
    assert status(local_transport(), options)["fallback"]["runs"] == first


def test_a_start_file_that_rotted_itself_ends_nothing(board: Board) -> None:
    root, _, _, second = board
    path = root / "releases" / second / "start"
    data = path.read_bytes()
    for rotten in (data.replace(b"def ", b"dex ", 1), bytes(len(data)), data[: len(data) // 2]):
        path.write_bytes(rotten)
        done = by_its_python(root)
        # Its list names the file: the release is damaged, and its own runtime says so.
        assert done.returncode == 0 and done.stdout, done.stderr


def test_no_runtime_runs_that_trust_refuses(board: Board, keys: Keys, tmp_path: Path) -> None:
    root, options, first, second = board
    for name in ("ours", "second"):
        trust(local_transport(), name, keys.public(name), options=options)
    rotten_runtime(root / "releases" / second, "zeros")
    assert f"/{first}/" in by_its_python(root).stdout
    revoke(local_transport(), keys.public("second"), options)
    done = by_its_python(root)
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert re.search(r"nor is the release before it whole: .*revoked", line), line


def test_two_damaged_releases_are_one_error_and_nothing_is_tried_for_ever(board: Board) -> None:
    root, _, first, second = board
    before = (root / "state.json").read_bytes()
    for name in (first, second):
        flip(root / "releases" / name / "artifact" / "weights.bin")
    for _ in range(3):
        with pytest.raises(ArtifactError, match=r"nor does the release before it start: .*weights"):
            Localizer()
    assert os.readlink(root / "current") == f"releases/{second}"
    assert (root / "state.json").read_bytes() == before
    shutil.rmtree(root / "releases" / first)
    with pytest.raises(ArtifactError, match="was altered"):
        Localizer()


def test_a_release_that_a_deploy_still_watches_is_not_replaced(board: Board) -> None:
    root, _, first, second = board
    state = json.loads((root / "state.json").read_text())
    state["pending"] = {"release": second, "before": first}
    (root / "state.json").write_text(json.dumps(state))
    flip(root / "releases" / second / "artifact" / "weights.bin")
    rotten_runtime(root / "releases" / second, "zeros")
    store = Store(os.fspath(root), Disk())
    store.lock("a deploy")
    with pytest.raises(ArtifactError, match="is damaged"):
        Localizer()
    assert by_its_python(root).returncode
    store.unlock()  # as the kernel does where the deploy died, or the power went
    assert running() == first and f"/{first}/" in by_its_python(root).stdout
    assert os.readlink(root / "current") == f"releases/{second}", "the next deploy settles it"


def test_where_signatures_are_enforced_the_release_before_has_to_be_good_too(
    board: Board, keys: Keys
) -> None:
    root, options, first, second = board
    for name in ("ours", "second"):
        trust(local_transport(), name, keys.public(name), options=options)
    assert status(local_transport(), options)["lowest_serial"] == 200
    flip(root / "releases" / second / "artifact" / "weights.bin")
    assert running() == first, "below the lowest serial, and installed here"
    revoke(local_transport(), keys.public("second"), options)
    with pytest.raises(TatvprError, match=r"nor does the release before it start: .*revoked"):
        Localizer()


def test_a_map_that_the_board_itself_rewrote_is_no_damage(board: Board) -> None:
    _, options, _, second = board
    with Localizer() as localizer:
        assert localizer.map is not None
        localizer.map.prune(4)
    assert running() == second and status(local_transport(), options)["fallback"] is None


def test_a_map_of_a_signed_release_is_not_rewritten(board: Board, keys: Keys) -> None:
    root, options, _, second = board
    for name in ("ours", "second"):
        trust(local_transport(), name, keys.public(name), options=options)
    path = root / "current" / "map.placemap"
    before = path.read_bytes()
    with Localizer() as localizer:
        assert localizer.map is not None
        localizer.add(FRAME)
        added = localizer.map.stored.added
        ways: tuple[Callable[[], object], ...] = (
            lambda: localizer.map.prune(4),
            lambda: lean_map(path),
            lambda: compact(path),
            lambda: append(path, added, neighbours=True),
            lambda: rewrite(path, lambda stored: (stored.base.info, [stored.places()])),
        )
        for way in ways:
            with pytest.raises(MapError, match="part of a signed release"):
                way()
    assert path.read_bytes() == before and running() == second
    assert len(read_map(path)) == 6


def test_a_spawned_process_searches_the_map_that_was_signed(
    board: Board, keys: Keys, tmp_path: Path
) -> None:
    """It took whatever lay there by then."""
    root, options, _, second = board
    for name in ("ours", "second"):
        trust(local_transport(), name, keys.public(name), options=options)
    with Localizer() as localizer:
        handed_on = pickle.dumps(localizer)
        with pickle.loads(handed_on) as child:
            assert child.query(FRAME).tag == "place 0"
            assert pickle.dumps(child) == handed_on
        places = root / "releases" / second / deployed.MAP
        os.replace(places_of(localizer.artifact.root, tmp_path / "other.placemap", 4), places)
    with pytest.raises(MapError, match="signed"):
        pickle.loads(handed_on)


def test_a_root_that_cannot_be_written_starts_all_the_same(board: Board) -> None:
    root, options, first, second = board
    flip(root / "releases" / second / "artifact" / "weights.bin")
    (root / deployed.FALLBACK).mkdir()  # nothing can be written there, not even by root
    assert running() == first
    assert status(local_transport(), options)["fallback"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"points": []},
        {"frames": [], "points": []},
        {"min_cosine": -1.0},
        {"min_cosine": 0.4},
        {"min_cosine": 1.5},
    ],
)
def test_an_artifact_that_cannot_tell_right_answers_is_none(
    tiny_host: Path, tmp_path: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_host, folder)
    document = json.loads((folder / "manifest.json").read_text())
    if "min_cosine" in change:
        document["golden"]["points"][0].update(change)
    else:
        document["golden"].update(change)
    (folder / "manifest.json").write_bytes(seal(document))
    with pytest.raises(ArtifactError, match=r"no golden point|min_cosine"):
        Localizer(folder)
    assert main(["verify", str(folder)]) == 1
    assert "golden point" in capsys.readouterr().err


def test_too_little_memory_is_no_damage(board: Board) -> None:
    """Where the live release's map is too large for a process's memory, that is told: an older
    release with a smaller one does not start in its place."""
    root, options, first, second = board
    path = root / "releases" / second / "map.placemap"
    with Localizer(root / "releases" / second / "artifact") as localizer:
        size = localizer.artifact.manifest.model.descriptor_size
        info = MapInfo(localizer.artifact.manifest.model.hash, "int8", size, (Band(0.2),), "local")
    rows = np.ones((400_000, size), np.float32)
    write_map(path, info, [make_places(info, [rows], np.full((len(rows), 7), np.nan))])
    ask = (
        "import resource, sys\nfrom tatvpr_edge.runtime import Localizer\n"
        "Localizer(sys.argv[2]).close()\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "most = used + int(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "try:\n    print(Localizer().artifact.root.parent.name)\n"
        "except Exception as error:\n    print('refused', error)\n"
    )
    seen = set()
    for megabytes in (10, 15, 20, 30, 400):
        words = [str(megabytes << 20), str(root / "releases" / first / "artifact")]
        done = subprocess.run(
            [sys.executable, "-c", ask, *words], capture_output=True, text=True, check=True
        )
        seen.add(done.stdout.split()[0])
    assert seen == {"refused", second}
    assert status(local_transport(), options)["fallback"] is None
