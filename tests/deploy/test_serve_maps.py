"""A service's map grows through its clients, and each of them finds what another added."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.artifacts import scenes
from support.serving import serving
from tatvpr_edge.runtime import Client, Localizer, MapWriter, PlaceMap, messages
from tatvpr_edge.runtime.mapjournal import journal_path
from tatvpr_edge.spec.errors import DeployError, FrameError, MapError, TatvprError, UsageError

FRAMES = scenes(6)


@pytest.fixture
def grown(tiny_host: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The socket of a service, and the map that it serves, empty at first."""
    places = tmp_path / "m.placemap"
    MapWriter(places, tiny_host).close()
    words = ["--artifact", str(tiny_host), "--map", str(places), "--k", "1"]
    with serving(tmp_path / "s.sock", *words):
        yield tmp_path / "s.sock", places


def test_what_one_client_adds_another_finds_and_the_disk_keeps(
    grown: tuple[Path, Path], tiny_host: Path
) -> None:
    path, places = grown
    with Client(path) as driver, Client(path) as other:
        for number, frame in enumerate(FRAMES[:4]):
            added = driver.add(frame, (10.0 * number, 2.0), f"stop {number}")
            assert (added.place, added.reason) == (number, None)
        for number, frame in enumerate(FRAMES[:4]):
            match = other.query(frame)
            assert (match.place, match.tag) == (number, f"stop {number}")
            assert match.pose is not None and match.pose[:2] == (10.0 * number, 2.0)
        again = driver.add(FRAMES[1], (0.0, 0.0), novelty=0.99)
        assert again.place is None and "place 1 looks like it" in str(again.reason)
        assert len(PlaceMap(places)) == 4
    with Localizer(tiny_host, places, k=1.0) as localizer:
        assert localizer.query(FRAMES[2]).tag == "stop 2"


def test_a_self_test_counts_what_was_added_and_outlives_the_map_s_file(
    grown: tuple[Path, Path],
) -> None:
    """A deploy's health check goes back where memory exceeds what is promised, and systemd ends a
    service whose self-test fails; this one answers from memory."""
    path, places = grown
    with Client(path) as client:
        empty = client.self_test()["promised_bytes"]
        for number, frame in enumerate(FRAMES):
            client.add(frame, tag=f"stop {number}")
        journal = journal_path(places)
        assert client.self_test()["promised_bytes"] == empty + journal.stat().st_size
        places.unlink()
        journal.unlink()
        assert client.self_test()["golden"] and client.query(FRAMES[2]).tag == "stop 2"


def test_a_client_asks_as_a_localizer_does(grown: tuple[Path, Path], tiny_host: Path) -> None:
    path, places = grown
    with Client(path) as client:
        for number, frame in enumerate(FRAMES):
            client.add(frame, (10.0 * number, 0.0), time_s=100.0 + number)
        with Localizer(tiny_host, places, k=1.0) as here:
            for options in (
                {"near": (20.0, 0.0), "radius": 11.0},
                {"near": np.array([20.0, 0.0, math.nan]), "radius": 11.0},
                {"exclude_last": 3},
                {"exclude_last": "2.5s", "time_s": 106.0},
                {"top": 2},
            ):
                there, expected = (
                    client.query(FRAMES[5], **options),
                    here.query(FRAMES[5], **options),
                )
                assert [c.place for c in there.candidates] == [c.place for c in expected.candidates]
                assert there.score == expected.score
        assert client.query(FRAMES[5], exclude_last="2.5s", time_s=106.0).place < 4


def test_what_is_unknown_of_a_pose_stays_unknown(grown: tuple[Path, Path]) -> None:
    path, places = grown
    nan = math.nan
    poses = [(1.0, 2.0, nan, 0.0, 0.0, 0.0, 1.0), (nan,) * 7, (1.0, 2.0, nan), np.full(7, nan)]
    with Client(path) as client:
        for frame, pose in zip(FRAMES, poses, strict=False):
            assert client.add(frame, pose, time_s=math.nan).place is not None
    kept = PlaceMap(places).stored.places()
    assert not kept.moments["time_us"].any()
    for stored, pose in zip(kept.poses, poses, strict=True):
        assert np.array_equal(stored[: len(pose)], pose, equal_nan=True)


def test_a_map_stays_within_its_limit_and_keeps_what_was_confirmed(
    grown: tuple[Path, Path],
) -> None:
    path, places = grown
    with Client(path) as client:
        client.add(FRAMES[0], tag="kept")
        client.confirm(client.query(FRAMES[0]))
        # shown again and again, it would be the first to go: nothing is more like its neighbours
        dropped = [client.add(FRAMES[0], tag=f"{i}", max_places=4).dropped for i in range(8)]
    assert sum(dropped) >= 4 and len(PlaceMap(places)) <= 4
    stored = PlaceMap(places).stored.places()
    assert "kept" in stored.tags


def test_a_match_confirms_its_place_whatever_its_number_has_become(
    grown: tuple[Path, Path], tiny_host: Path, tmp_path: Path
) -> None:
    """Another client's frame has the map pruned between a query and its confirmation."""
    path, places = grown
    with Client(path) as client, Client(path) as other:
        for number, frame in enumerate(FRAMES):
            client.add(frame, tag=f"{number}")
        matches = [client.query(frame) for frame in FRAMES]
        with MapWriter(tmp_path / "other.placemap", tiny_host) as writer:
            for frame in FRAMES:
                writer.add(frame)
        before = client.info()["map_path"]
        client.set(map=tmp_path / "other.placemap")
        with pytest.raises(MapError, match="found in another map"):
            client.confirm(matches[0])
        client.set(map=before)
        assert other.add(FRAMES[0], max_places=4).dropped
        left = set(PlaceMap(places).stored.places().tags)
        for match in matches:
            if match.tag in left:
                client.confirm(match)
            else:
                with pytest.raises(MapError, match=f"no place {match.place} any longer"):
                    client.confirm(match)
    assert 1 <= len(left & {match.tag for match in matches}) < len(FRAMES)


def test_what_a_map_holds_a_service_takes_and_what_is_too_long_is_told(
    grown: tuple[Path, Path],
) -> None:
    path, places = grown
    tags = ("é" * 32767, "\x01" * 65535)  # six bytes each on the way
    with Client(path) as client:
        for tag in tags:
            assert client.add(FRAMES[0], tag=tag).place is not None
        assert client.query(FRAMES[0], top=2).candidates[1].tag in tags
        long = np.broadcast_to(FRAMES[0][:1, :1], (6000, 6000, 3))
        for call in (client.query, client.describe, client.add):
            with pytest.raises(FrameError, match=r"103 MiB: a service takes at most 96 MiB"):
                call(long)
        with pytest.raises(UsageError, match=r"more than 512 KiB"):
            client.query(FRAMES[0], exclude_last="9" * 600_000 + "s")
        assert client.query(FRAMES[0]).tag in tags
    assert PlaceMap(places).tag(0) == tags[0]


BAD = [
    ({"pose": (1.0,)}, MapError),
    ({"pose": (1.0, math.inf)}, MapError),
    ({"pose": "here"}, MapError),
    ({"novelty": 2.0}, UsageError),
    ({"novelty_m": 1.0}, UsageError),
    ({"max_places": 1}, UsageError),
    ({"time_s": -5.0}, TatvprError),
    ({"tag": "x" * 65536}, TatvprError),
]


def test_what_cannot_be_added_is_an_error_and_the_seat_stays(grown: tuple[Path, Path]) -> None:
    path, places = grown
    with Client(path) as client:
        for words, error in BAD:
            with pytest.raises(error):
                client.add(FRAMES[0], **words)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="place is the number"):
            client._ask({"op": "confirm", "place": "all"})
        with pytest.raises(UsageError, match="mark is what a query's answer gave"):
            client._ask({"op": "confirm", "place": 0, "mark": 7})
        for mark in ("", "no mark", "0" * 40, "é" * 9):
            with pytest.raises(MapError, match="found in another map"):
                client._ask({"op": "confirm", "place": 0, "mark": mark})
        with pytest.raises(MapError):
            client.confirm(7)
        assert len(PlaceMap(places)) == 0
        assert client.add(FRAMES[0]).place == 0


def test_a_service_without_a_map_says_so(tiny_host: Path, tmp_path: Path) -> None:
    with (
        serving(tmp_path / "s.sock", "--artifact", str(tiny_host)),
        Client(tmp_path / "s.sock") as client,
        pytest.raises(MapError, match="no map"),
    ):
        client.add(FRAMES[0])


def test_a_place_is_never_sent_twice(tmp_path: Path) -> None:
    """A service that takes the request and dies may have added it: the program is told."""
    path, seen = tmp_path / "s.sock", []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def take_and_die() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    message = messages.decode(messages.receiver(connection, 10.0))
                    seen.append(None if message is None else message[0]["op"])

        thread = threading.Thread(target=take_and_die, daemon=True)
        thread.start()
        with Client(path, restart_s=0.5) as client:
            with pytest.raises(DeployError, match="is not known"):
                client.add(FRAMES[0])
            assert seen == ["add"]
            with pytest.raises(DeployError):
                client.query(FRAMES[0])  # asks nothing of the service's state: sent again
            assert seen.count("query") > 1 and seen.count("add") == 1
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
