"""What a service answers: the Localizer's own answers, for each of the programs that ask it."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.serving import FRAME, make_map, serving
from tatvpr_edge.runtime import CameraFrame, Localizer
from tatvpr_edge.runtime.client import Client
from tatvpr_edge.runtime.mapjournal import rewrite
from tatvpr_edge.runtime.service import Seat, Service
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.errors import DeployError, FrameError, MapError, UsageError
from tatvpr_edge.spec.maptypes import calibrated


def test_answers_are_the_localizers_own(served: tuple[Path, Localizer]) -> None:
    path, here = served
    with Client(path) as client:
        for frame, bgr in ((FRAME, False), (FRAME, True), (FRAME[:, :, 0], False)):
            assert client.describe(frame, bgr).tobytes() == here.describe(frame, bgr).tobytes()
            there, expected = client.query(frame, bgr, top=3), here.query(frame, bgr, top=3)
            assert [c.tag for c in there.candidates] == [c.tag for c in expected.candidates]
            assert there.score == expected.score and there.accepted is expected.accepted
        assert there.candidates[0].pose is not None and len(there.candidates[0].pose) == 7
        # A frame that is a view of another one: not packed in memory.
        view = FRAME[::-1, ::2]
        assert client.describe(view).tobytes() == here.describe(view).tobytes()
        info = client.info()
        assert info["model_hash"] == here.artifact.manifest.model.hash and info["map"] is True
        test = client.self_test()
        assert test["golden"][0]["identical"] and test["grown_bytes"] < 200 << 20


def test_a_calibrated_map_s_verdict_is_served(tiny_host: Path, tmp_path: Path) -> None:
    with Localizer(tiny_host, k=0.2) as plain:
        rows = np.stack([plain.describe(np.roll(FRAME, 7 * i, 0)) for i in range(12)])
        places = make_map(tmp_path / "m.placemap", plain.artifact.manifest.model.hash, rows)
    judged = Calibration("logistic", 0.0, (0.5, 1.0, 2.0), elsewhere_places=1, precision=0.9)
    rewrite(places, lambda old: (calibrated(old.base.info, [judged]), [old.base.places()]))
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host), "--map", str(places)]
    with serving(path, *words), Client(path) as client, Localizer(tiny_host, places) as here:
        for frame in (FRAME, np.zeros_like(FRAME)):
            there, expected = client.query(frame), here.query(frame)
            for name in ("accepted", "confidence", "margin", "reason"):
                assert getattr(there, name) == getattr(expected, name)
        assert there.accepted is False and there.reason is not None
        assert client.query(FRAME).accepted is True


def test_a_client_can_be_handed_to_a_spawned_process(served: tuple[Path, Localizer]) -> None:
    path, here = served
    with Client(path, timeout_s=7.0) as client:
        with pickle.loads(pickle.dumps(client)) as there:
            assert (there.timeout_s, there.stale) == (7.0, client.stale)
            assert there.query(FRAME).tag == here.query(FRAME).tag
        assert client.query(FRAME).tag == here.query(FRAME).tag
    with pytest.raises(DeployError, match="was closed"):
        pickle.loads(pickle.dumps(client)).query(FRAME)


def test_each_connection_is_a_path_of_its_own(tiny_host: Path, tmp_path: Path) -> None:
    with Localizer(tiny_host, k=0.2) as plain:
        rows = np.stack([plain.describe(np.roll(FRAME, 7 * i, 0)) for i in range(12)])
        places = make_map(tmp_path / "m.placemap", plain.artifact.manifest.model.hash, rows)
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host), "--map", str(places), "--k", "0.2"]
    with (
        serving(path, *words),
        Client(path, sequence=3) as one,
        Client(path, sequence=3) as two,
        Client(path) as single,
        Localizer(tiny_host, places, k=0.2, sequence=3) as here,
    ):
        for index in range(4):
            frame = np.roll(FRAME, 7 * index, 0)
            moved: Any = 0.5 if index % 2 else (0.5, 0.0, 0.1)
            there, expected = one.query(frame, odometry=moved), here.query(frame, odometry=moved)
            assert (there.place, there.frames) == (expected.place, min(index + 1, 3))
        assert two.query(FRAME).frames == 1 and single.query(FRAME).frames == 1
        one.restart()
        assert one.query(FRAME).frames == 1
        with pytest.raises(UsageError, match=r"odometry .*: give Localizer or Client seq"):
            single.query(FRAME, odometry=1.0)
        with pytest.raises(UsageError, match="metres that the camera moved"):
            one.query(FRAME, odometry=float("nan"))
        with pytest.raises(UsageError, match="sequence is"):
            single._ask({"op": "query", "sequence": -1})


def test_k_can_be_set_and_bad_requests_are_errors_not_the_end(
    served: tuple[Path, Localizer],
) -> None:
    path, here = served
    with Client(path) as client:
        assert client.set(k=1.0, tokens=0.5) == {"k": 1.0, "tokens": 0.5}
        assert client.query(FRAME).k == 1.0
        client.set(k=0.2, tokens=1.0)
        for bad in ({"k": 0}, {"k": 1.5}, {"k": "fast"}, {"k": None}, {"tokens": float("nan")}):
            with pytest.raises(UsageError):
                client.set(**bad)
        for frame in (FRAME.astype(float), FRAME[:0], np.zeros((4, 4, 5), np.uint8), "frame"):
            with pytest.raises(UsageError):
                client.query(frame)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="top"):
            client.query(FRAME, top=0)
        with pytest.raises(UsageError, match="op is one of"):
            client._ask({"op": "rm -rf"})
        with pytest.raises(FrameError):
            client.describe([1, 2, 3])  # type: ignore[arg-type]
        assert client.describe(FRAME).tobytes() == here.describe(FRAME).tobytes()


def test_a_budget_is_served_and_set_for_all(tiny_host: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host), "--k", "auto", "--budget", "5000ms"]
    with serving(path, *words), Client(path) as client:
        now = client.set()
        assert (now["k"], now["budget"], now["preset"]) == ("auto", "5000 ms", None)
        now = client.set(budget="20ms", preset="battery-saver")
        assert (now["budget"], now["preset"]) == ("20 ms", "battery-saver")
        assert "budget 20 ms" in now["why"]
        client.describe(FRAME)
        with pytest.raises(UsageError, match="not understood"):
            client.set(budget="much")
        with pytest.raises(UsageError, match='budget belongs to k="auto"'):
            client.set(k=0.2, budget="5W")
        assert client.set(k=0.2) == {"k": 0.2, "tokens": 1.0}
        with pytest.raises(UsageError, match='budget belongs to k="auto"'):
            client.set(budget="5W")
        assert client.set(k="auto", budget="30ms")["budget"] == "30 ms"


@pytest.mark.parametrize("words", [["--budget", "5W"], ["--k", "auto"], ["--k", "fast"]])
def test_a_budget_that_would_be_ignored_or_is_missing_is_not_served(
    tiny_host: Path, tmp_path: Path, words: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tatvpr_edge.runtime", "serve", "--artifact", str(tiny_host),
         "--socket", str(tmp_path / "s.sock"), *words],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_many_programs_ask_at_once(served: tuple[Path, Localizer]) -> None:
    path, here = served
    expected = here.describe(FRAME).tobytes()
    wrong: list[object] = []

    def ask() -> None:
        with Client(path) as client:
            for _ in range(20):
                if client.describe(FRAME).tobytes() != expected:
                    wrong.append("another answer")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_answer_is_as_long_as_what_was_asked_for(tiny_host: Path, tmp_path: Path) -> None:
    with Localizer(tiny_host) as plain:
        one = plain.describe(FRAME)
        place_map = make_map(
            tmp_path / "m.placemap", plain.artifact.manifest.model.hash, np.tile(one, (3000, 1))
        )
    path = tmp_path / "s.sock"
    with (
        serving(path, "--artifact", str(tiny_host), "--map", str(place_map)),
        Client(path) as client,
    ):
        match = client.query(FRAME, top=3000)
        assert len(match.candidates) == 3000 and match.candidates[2999].place == 2999


def test_camera_frames_go_through_as_a_localizer_takes_them(
    served: tuple[Path, Localizer],
) -> None:
    path, here = served
    y = np.ascontiguousarray(FRAME[:, :, 0])
    nv12 = CameraFrame((y, np.ascontiguousarray(y[:20])), "NV12", 56, 40)
    padded = CameraFrame((np.hstack([y, y]),), "GRAY8", 56, 40)
    with Client(path) as client:
        video = dataclasses.replace(nv12, yuv_range="limited", yuv_matrix="bt709")
        assert here.describe(video).tobytes() != here.describe(nv12).tobytes()
        for frame in (nv12, padded, video):
            assert client.describe(frame).tobytes() == here.describe(frame).tobytes()
            assert client.query(frame).place == here.query(frame).place
        with pytest.raises(FrameError, match="unknown"):
            client.describe(CameraFrame((y,), "JPEG", 56, 40))


def test_a_client_changes_the_map_for_all(tiny_host: Path, tmp_path: Path) -> None:
    with Localizer(tiny_host, k=1.0) as plain:
        frames = [np.roll(FRAME, 7 * i, 0) for i in range(4)]
        rows = np.stack([plain.describe(frame) for frame in frames])
        model = plain.artifact.manifest.model.hash
    first = make_map(tmp_path / "first.placemap", model, rows[:2])
    second = make_map(tmp_path / "second.placemap", model, rows[::-1])
    bad = make_map(tmp_path / "bad.placemap", "ab" * 32, rows)
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host), "--map", str(first), "--k", "1"]
    with serving(path, *words), Client(path) as client, Client(path) as other:
        assert client.query(frames[0]).tag == "place 0"
        # Its path as the program writes it, whatever folder the service runs in.
        set_now = client.set(map=os.path.relpath(second))
        assert set_now["map_path"] == str(second) == other.info()["map_path"]
        assert other.query(frames[0]).tag == "place 3"
        for wrong in (bad, tmp_path / "missing.placemap"):
            with pytest.raises(MapError, match=wrong.name):
                client.set(map=wrong)
        assert other.query(frames[0]).tag == "place 3"
        client.set(map=None)
        with pytest.raises(MapError, match="no map"):
            other.query(frames[0])


def test_a_client_that_sets_k_does_not_take_back_the_map_that_was_set_meanwhile(
    tiny_host: Path, tmp_path: Path
) -> None:
    with Localizer(tiny_host, k=1.0) as localizer:
        model = localizer.artifact.manifest.model.hash
        rows = np.stack([localizer.describe(FRAME)])
        first, second = (make_map(tmp_path / f"{n}.placemap", model, rows) for n in range(2))
        localizer.map = first

        class Slow:
            """A number that takes so long that another thread sets the map."""

            def __float__(self) -> float:
                localizer.map = second
                return 0.4

        answer, _ = Service(localizer).answer({"op": "set", "k": Slow()}, b"", Seat())
        assert answer["ok"] and localizer.k == 0.4
        assert localizer.map is not None and localizer.map.path == second
