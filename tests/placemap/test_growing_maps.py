"""A robot's map grows while it drives: what is added is found, kept, and thinned out fairly."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.artifacts import scenes
from tatvpr_edge import runtime
from tatvpr_edge.runtime import Localizer, MapWriter, PlaceMap
from tatvpr_edge.runtime.growing import Added
from tatvpr_edge.runtime.mapjournal import compact
from tatvpr_edge.runtime.pruning import along_drives, neighbour_scores, prune
from tatvpr_edge.spec.errors import MapError, UsageError
from tatvpr_edge.spec.maptypes import Band, MapInfo, Places, make_places
from tatvpr_edge.spec.placemap import write_map

F32 = NDArray[np.float32]


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return scenes(8)


@pytest.fixture
def robot(tiny_host: Path, tmp_path: Path) -> Localizer:
    """A localizer at k = 1 whose map has no places yet."""
    localizer = Localizer(tiny_host, k=1.0, tokens=1.0)
    MapWriter(tmp_path / "drive.placemap", localizer).close()
    localizer.map = tmp_path / "drive.placemap"
    return localizer


def directions(count: int, size: int, seed: int = 0) -> F32:
    rows = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    unit: F32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def test_the_pages_program_runs_from_the_first_frame_on(
    tiny_host: Path,
    tmp_path: Path,
    frames: NDArray[np.uint8],
    project_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked before it held a place, its map was an error."""
    monkeypatch.chdir(tmp_path)
    page = (project_root / "docs" / "placemap.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (program,) = (block for block in blocks if "novelty=" in block)
    with Localizer(tiny_host, k=1.0) as localizer:
        names = {"runtime": runtime, "localizer": localizer, "frame": frames[0], "pose": (0, 0)}
        exec(program, names)
        assert names["match"] is None and names["added"].place == 0
        exec(program[program.index("match = ") :], names | {"frame": frames[1]})
        assert len(localizer.map) in (1, 2)


def test_what_is_added_is_found_by_the_next_query_and_by_the_next_program(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    for index, frame in enumerate(frames):
        added = robot.add(frame, (index, 1.0), f"frame {index}")
        assert added.place == index and added.reason is None
        match = robot.query(frame)
        assert (match.place, match.tag) == (index, f"frame {index}") and match.score > 0.999
    assert robot.map is not None
    again = PlaceMap(robot.map.path)
    assert len(again) == len(frames) and again.tag(3) == "frame 3"
    moments = again.stored.added.moments
    assert moments["order"].tolist() == list(range(8)) and set(moments["drive"]) == {0}


def test_what_the_map_knows_is_not_added_again(robot: Localizer, frames: NDArray[np.uint8]) -> None:
    assert robot.add(frames[0], novelty=0.9).place == 0
    refused = robot.add(frames[0], novelty=0.9)
    assert refused.place is None and refused.reason == "place 0 looks like it (1.000)"
    assert refused.score is not None and refused.score > 0.999
    assert robot.add(frames[0]).place == 1  # without the rule it is
    assert robot.map is not None and len(PlaceMap(robot.map.path)) == 2


def test_what_looks_alike_elsewhere_is_no_reason_to_leave_a_place_out(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    rule = {"novelty": 0.9, "novelty_m": 2.0}
    assert robot.add(frames[0], (0.0, 0.0), **rule).place == 0
    assert robot.add(frames[0], (1.5, 0.0, 7.0), **rule).reason == "place 0 looks like it (1.000)"
    twin = robot.add(frames[0], (50.0, 0.0), **rule)
    assert (twin.place, twin.reason, twin.score) == (1, None, None)
    with pytest.raises(UsageError, match="novelty_m needs a position"):
        robot.add(frames[0], **rule)


def test_the_description_of_a_query_is_used_where_it_is_the_maps_own(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    robot.add(frames[0])
    match = robot.query(frames[1])
    # Another frame beside the match shows whose descriptor was stored.
    robot.add(frames[2], match=match)
    assert robot.query(frames[1]).score > 0.999
    robot.k = 0.4
    low = robot.query(frames[3])
    robot.add(frames[4], match=low)  # made at another k than the map's band: described anew
    robot.k = 1.0
    assert robot.query(frames[4]).place == 2 and robot.query(frames[4]).score > 0.999


def test_eight_threads_query_while_one_adds_and_prunes(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    size = robot.descriptor_size
    for index, frame in enumerate(frames):
        robot.add(frame, tag=f"frame {index}")
        robot.confirm(index)
    faults: list[str] = []
    done = threading.Event()

    def ask(own: int) -> None:
        while not done.is_set():
            match = robot.query(frames[own])
            if match.tag != f"frame {own}" or match.score < 0.999:
                faults.append(f"{own}: {match.tag} {match.score}")

    threads = [threading.Thread(target=ask, args=(own,)) for own in range(8)]
    for thread in threads:
        thread.start()
    dropped = 0
    for row in directions(120, size):
        dropped += robot.add(row, tag="other", max_places=40).dropped
    done.set()
    for thread in threads:
        thread.join()
    assert not faults and dropped > 0
    assert robot.map is not None and len(robot.map) <= 40


PROGRAM = """
import sys
import numpy as np
from tatvpr_edge.runtime import Localizer
robot = Localizer(sys.argv[1], sys.argv[2], k=1.0)
rows = np.random.default_rng(0).standard_normal((100000, robot.descriptor_size))
for row in rows.astype(np.float32):
    print(robot.add(row, tag="x" * 40, max_places=200).place, len(robot.map), flush=True)
"""


def test_a_killed_program_loses_nothing_that_was_acknowledged(
    robot: Localizer, tiny_host: Path
) -> None:
    assert robot.map is not None
    path = robot.map.path
    known = 0
    for lines in (3, 60, 150, 230):
        command = [sys.executable, "-c", PROGRAM, str(tiny_host), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(lines)]
            os.kill(child.pid, signal.SIGKILL)
            said += child.stdout.readlines()
        whole = [line for line in said if line.endswith(b"\n")]
        acknowledged = int(whole[-1].split()[1])
        found = len(PlaceMap(path))
        # One more may be on the disk than was said; a prune may follow the last word.
        assert found in (acknowledged, acknowledged + 1) or found == 180
        known = max(known, found)
    assert known >= 180


def test_a_full_map_keeps_what_was_confirmed_and_says_how_well_the_rest_is_covered(
    robot: Localizer,
) -> None:
    size = robot.descriptor_size
    corners = directions(6, size, seed=1)
    for corner in range(5):  # a drive: ten steps from each corner to the next
        for step in range(10):
            mixed = corners[corner] * (10 - step) + corners[corner + 1] * step
            robot.add(mixed / np.linalg.norm(mixed), (10 * corner + step, 0.0), f"{corner}.{step}")
    assert robot.map is not None
    robot.confirm(23)
    pruned = robot.map.prune(20)
    assert pruned.dropped == 30 and len(robot.map) == 20
    tags = [robot.map.tag(place) for place in range(20)]
    assert "2.3" in tags and tags == sorted(tags)
    # The drive is even: so is what is left of it.
    assert pruned.least_covered is not None and pruned.least_covered > 0.8
    gaps = np.diff([robot.map.pose(place)[0] for place in range(20)])
    assert gaps.max() <= 5
    again = PlaceMap(robot.map.path)
    assert int(again.stored.base.moments["confirmed"][tags.index("2.3")]) == 1


def test_more_confirmed_places_than_may_stay_are_an_error_that_drops_nothing(
    robot: Localizer,
) -> None:
    for row in directions(5, robot.descriptor_size):
        robot.add(row)
    assert robot.map is not None
    for place in range(5):
        robot.confirm(place)
    with pytest.raises(MapError, match="5 of 5 places were confirmed"):
        robot.map.prune(4)
    assert len(robot.map) == len(PlaceMap(robot.map.path)) == 5
    with pytest.raises(MapError, match="has no place 5"):
        robot.confirm(5)


def test_a_limit_in_bytes_holds_for_the_files(robot: Localizer) -> None:
    assert robot.map is not None
    most = 1 << 16
    for row in directions(500, robot.descriptor_size):
        robot.add(row, tag="some name of a frame.jpg", max_bytes=most)
        assert robot.map.file_bytes <= most
    sizes = [p.stat().st_size for p in robot.map.path.parent.glob("drive.placemap*")]
    assert sum(sizes) <= most + 4096  # and a lock beside them
    assert len(robot.map) > 200


def test_places_that_another_program_added_are_seen_with_the_next_of_ours(
    robot: Localizer, tiny_host: Path, frames: NDArray[np.uint8]
) -> None:
    assert robot.map is not None
    with Localizer(tiny_host, robot.map.path, k=1.0) as other:
        other.add(frames[0], tag="theirs")
        assert robot.add(frames[1], tag="ours").place == 1
        assert robot.query(frames[0]).tag == "theirs"


def test_a_path_goes_on_where_another_program_adds_as_well(
    robot: Localizer, tiny_host: Path, frames: NDArray[np.uint8]
) -> None:
    assert robot.map is not None
    for frame in frames[:4]:
        robot.add(frame)
    tracker = robot.track(5)
    with Localizer(tiny_host, robot.map.path, k=1.0) as other:
        for number, frame in enumerate(frames[:4]):
            assert tracker.query(frame).frames == number + 1
            other.map.add([robot.describe(frames[4 + number])], np.full(7, np.nan))  # type: ignore[union-attr]
            assert robot.add(frames[4 + number]).place == 5 + 2 * number
    robot.map.prune(6)
    assert tracker.query(frames[0]).frames == 1


def test_a_signed_map_is_held_to_its_hash_where_it_is_read_once_more(
    robot: Localizer, tmp_path: Path
) -> None:
    """Another writer's place makes it so; the file was exchanged meanwhile."""
    assert robot.map is not None
    info, rows = robot.map.info, directions(4, robot.descriptor_size)
    path, other = tmp_path / "signed", tmp_path / "other"
    write_map(path, info, [make_places(info, [rows[:1]], tags=["signed"])])
    write_map(other, info, [make_places(info, [rows[1:3]], tags=["other", "more"])])
    signed = PlaceMap(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with MapWriter(path, robot) as writer:
        writer.add(rows[1])
    nowhere = np.full(7, np.nan)
    assert signed.add([rows[3]], nowhere) == 2 and signed.tag(0) == "signed"
    other.replace(path)
    path.with_name("signed.journal").unlink()
    with pytest.raises(MapError, match="is not what was signed"):
        signed.add([rows[3]], nowhere)
    assert signed.tag(0) == "signed" and len(signed) == 3


def test_the_last_seconds_are_left_out(robot: Localizer, frames: NDArray[np.uint8]) -> None:
    for index, frame in enumerate(frames):
        robot.add(frame, time_s=1000.0 + 10 * index)
    ask = partial(robot.query, time_s=1070.0)
    assert ask(frames[7]).place == 7
    assert ask(frames[7], exclude_last="25s").place < 5
    assert ask(frames[4], exclude_last="25 s").place == 4
    assert ask(frames[4], exclude_last="1000s").place == -1
    # Seconds are those before the frame, not before the newest place: a robot that adds nothing,
    # because it knows where it is, finds in time what it stored.
    assert robot.query(frames[7], exclude_last="25s", time_s=1100.0).place == 7
    assert robot.query(frames[7], exclude_last="25s").place == 7  # now, years later
    robot.add(frames[0])
    assert robot.query(frames[0], exclude_last="600s").place == 0
    for wrong in ("25", "25m", "-1s", 2.5):
        with pytest.raises(UsageError, match="exclude_last is"):
            robot.query(frames[0], exclude_last=wrong)  # type: ignore[arg-type]
    for when in (-1.0, float("nan"), "12"):
        with pytest.raises(UsageError, match="time_s is"):
            robot.query(frames[0], time_s=when)  # type: ignore[arg-type]


def test_places_of_a_later_day_are_no_recent_ones(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    """A board without a clock of its own that has not heard the time yet; an old recording."""
    for index, frame in enumerate(frames):
        robot.add(frame, time_s=1e9 + 10 * index)
    assert robot.query(frames[7], exclude_last="30s", time_s=12.0).place == 7
    assert robot.query(frames[7], exclude_last="30s", time_s=1e9 - 90.0).place == 7
    # The next frame was taken before this one, by its time, was stored.
    assert robot.query(frames[7], exclude_last="25s", time_s=1e9 + 69.9).place < 5
    assert robot.map is not None
    kept = robot.map.search(robot.describe(frames[4]), 1.0, count=8, without_s=(1e9 + 30, 1e9 + 50))
    assert {best.place for best in kept.candidates} == {0, 1, 2, 3, 5, 6, 7}


def test_a_clock_that_begins_at_0_is_a_known_time(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    """A simulator's: what it saw first was taken for a place of unknown time."""
    for second in range(3):
        robot.add(frames[second], time_s=float(second))
    assert robot.query(frames[0], time_s=2.5, exclude_last="30s").place == -1
    assert robot.map is not None
    found = robot.map.search(robot.describe(frames[0]), 1.0)
    robot.map.recognised(found, 2.5)
    assert robot.map.confirmed == 0


def test_places_of_unknown_time_are_no_recent_ones(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    robot.add(frames[0], time_s=float("nan"))
    robot.add(frames[1])
    assert robot.query(frames[0], exclude_last="600s", time_s=5.0).place == 0
    assert robot.query(frames[0], exclude_last="600s").place == 0
    assert robot.query(frames[1], exclude_last="600s").place == 0


def test_a_map_full_of_confirmed_places_takes_no_more_and_says_so(robot: Localizer) -> None:
    rows = directions(60, robot.descriptor_size)
    for row in rows[:20]:
        robot.confirm(robot.add(row, max_places=20).place or 0)
    assert robot.map is not None
    before = robot.map.file_bytes
    for row in rows[20:]:
        refused = robot.add(row, max_places=20)
        assert refused.place is None and refused.reason is not None
        assert "full" in refused.reason and refused.dropped == 0
    assert len(robot.map) == len(PlaceMap(robot.map.path)) == 20
    assert robot.map.file_bytes == before
    assert robot.add(rows[20], max_places=21).place == 20  # another limit, more room


@pytest.mark.parametrize("in_bytes", [False, True])
def test_a_map_with_more_confirmed_places_than_the_limit_takes_no_more(
    robot: Localizer, in_bytes: bool
) -> None:
    """It was made without a limit, or with a higher one."""
    rows = directions(200, robot.descriptor_size)
    for row in rows[:150]:
        robot.add(row, tag=500 * "t")
    assert robot.map is not None
    for place in range(140):
        robot.confirm(place)
    before = robot.map.file_bytes
    limit = {"max_bytes": before * 130 // 150} if in_bytes else {"max_places": 130}
    for row in rows[150:153]:
        refused = robot.add(row, tag=500 * "t", **limit)
        assert refused.place is None and refused.reason is not None and "full" in refused.reason
    assert (len(robot.map), robot.map.file_bytes) == (150, before)
    for row in rows[153:]:  # what is not confirmed makes room within the limit
        assert robot.add(row, max_places=145).place is not None
        assert len(robot.map) <= 145


def test_where_the_robot_just_was_is_not_confirmed_by_its_next_frame(
    robot: Localizer, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    assert robot.map is not None
    model = robot.artifact.manifest.model
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band.accepting(1.0, 1.0, 0.9),))
    write_map(tmp_path / "judged", info, [])
    robot.map = tmp_path / "judged"  # type: ignore[assignment]
    for index, frame in enumerate(frames):
        robot.add(frame, time_s=1000.0 + index)
        assert robot.query(frame, time_s=1001.0 + index).accepted
    assert robot.map.confirmed == 0
    assert robot.query(frames[3], time_s=1100.0).accepted
    assert robot.map.confirmed == 1
    robot.map.prune(1)
    assert robot.map.stored.places().moments["order"].tolist() == [3]


def test_what_was_confirmed_stays_where_another_program_gives_places_other_numbers(
    robot: Localizer, tiny_host: Path
) -> None:
    """Counts were kept by numbers: those of other places, once somebody else had pruned."""
    rows = directions(60, robot.descriptor_size)
    assert robot.map is not None
    for number, row in enumerate(rows[:40]):
        robot.add(row, tag=f"{number}")
    for place in (7, 31, 39):
        robot.confirm(place)
    with Localizer(tiny_host, robot.map.path, k=1.0) as other:
        assert other.map is not None
        for place in (7, 31):
            other.confirm(place)
        other.map.prune(20)  # 39 may go
        for row in rows[40:59]:
            other.add(row, tag="theirs")
    left = {tag for tag in PlaceMap(robot.map.path).stored.places().tags if tag != "theirs"}
    # As many places as before, and one more: the next number says nothing of what happened.
    assert robot.add(rows[59], tag="ours").place == 39 and len(robot.map) == 40
    found = [robot.map.search(row, 1.0).candidates[0].tag for row in rows[40:]]
    assert found == 19 * ["theirs"] + ["ours"]
    assert robot.map.confirmed == len(left & {"7", "31", "39"})
    robot.map.prune(robot.map.confirmed)
    assert set(robot.map.stored.places().tags) == left & {"7", "31", "39"}


def test_a_map_that_is_what_it_was_once_more_holds_no_other_places(
    robot: Localizer, tiny_host: Path
) -> None:
    """Pruned to the very file that was opened, with as many places behind it, but another one."""
    rows = directions(7, robot.descriptor_size)
    assert robot.map is not None
    path = robot.map.path
    for row in rows[:4]:
        robot.add(row)
    for place in range(4):
        robot.confirm(place)
    robot.map.prune(4)
    robot.add(rows[4], tag="gone")
    with Localizer(tiny_host, path, k=1.0) as other:
        assert other.map is not None
        other.map.prune(4)
        other.add(rows[5], tag="theirs")
    assert robot.add(rows[6], tag="ours").place == 5
    assert [robot.map.tag(place) for place in (4, 5)] == ["theirs", "ours"]


def test_a_match_confirms_its_place_whatever_its_number_has_become(robot: Localizer) -> None:
    """Geometry takes a while: the map was pruned meanwhile, and another place was kept."""
    assert robot.map is not None
    pictures = scenes(12)
    for number, frame in enumerate(pictures):
        robot.add(frame, tag=f"{number}")
    matches = [robot.query(frame) for frame in pictures]
    carried = pickle.loads(pickle.dumps(matches))
    for most in (9, 6):
        robot.map.prune(most)
    left = [robot.map.tag(place) for place in range(6)]
    for match in [*matches, *carried]:  # another process's, which hands them back
        if match.tag in left:
            robot.confirm(match)
        else:
            with pytest.raises(MapError, match=f"has no place {match.place} any longer"):
                robot.confirm(match)
    assert robot.map.confirmed == 6
    # Another map's place of that number is another place.
    match, path = robot.query(pictures[0]), robot.map.path
    with MapWriter(path.with_name("other.placemap"), robot) as other:
        for frame in pictures:
            other.add(frame)
    robot.map = other.path
    with pytest.raises(MapError, match="found in another map"):
        robot.confirm(match)
    robot.map = path
    robot.confirm(match)


def test_a_path_goes_on_where_another_program_compacts(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    assert robot.map is not None
    for frame in frames[:6]:
        robot.add(frame)
    robot.confirm(5)
    tracker = robot.track(5)
    for number in (0, 1, 2):
        assert tracker.query(frames[number]).frames == number + 1
    with MapWriter(robot.map.path, robot) as other:
        other.add(frames[7])
    compact(robot.map.path)
    assert robot.add(frames[6]).place == 7
    assert tracker.query(frames[3]).frames == 4
    assert robot.map.confirmed == 1
    robot.map.prune(1)
    assert robot.map.stored.places().moments["order"].tolist() == [5]


def test_a_limit_knows_what_another_program_confirmed(robot: Localizer, tiny_host: Path) -> None:
    """Pruning failed at every frame: more places than were known of had to stay."""
    rows = directions(41, robot.descriptor_size)
    assert robot.map is not None
    for row in rows[:20]:
        robot.add(row)
    with Localizer(tiny_host, robot.map.path, k=1.0) as other:
        assert other.map is not None
        for place in range(20):
            other.confirm(place)
        other.map.prune(20)
    assert "full" in (robot.add(rows[20], max_places=20).reason or "")
    assert len(PlaceMap(robot.map.path)) == 20


@pytest.mark.parametrize("in_bytes", [False, True])
def test_a_map_nearly_full_of_confirmed_places_is_not_written_anew_with_every_frame(
    robot: Localizer, in_bytes: bool
) -> None:
    rows = directions(260, robot.descriptor_size)
    assert robot.map is not None
    for row in rows[:200]:
        robot.add(row, tag=500 * "t")
    limit = {"max_bytes": robot.map.file_bytes} if in_bytes else {"max_places": 200}
    for place in range(198):
        robot.confirm(place)
    before = robot.map.path.stat().st_ino, len(robot.map)
    for row in rows[200:203]:
        refused = robot.add(row, tag=500 * "t", **limit)
        assert refused.place is None and "full" in (refused.reason or "")
    assert (robot.map.path.stat().st_ino, len(robot.map)) == before
    # With ten places more, a batch may go.
    more = {name: value * 210 // 200 for name, value in limit.items()}
    dropped = [robot.add(row, tag=500 * "t", **more).dropped for row in rows[203:260]]
    assert 2 <= sum(count > 0 for count in dropped) <= 8


def test_wrong_terms_are_told_by_name(robot: Localizer, frames: NDArray[np.uint8]) -> None:
    for terms, named in (
        ({"novelty": 2.0}, "novelty is 2.0"),
        ({"novelty_m": 2.0}, "novelty_m is 2.0: metres above 0, beside novelty"),
        ({"novelty": 0.9, "novelty_m": 0}, "novelty_m is 0"),
        ({"max_places": 1}, "max_places is 1"),
        ({"max_bytes": 10}, "max_bytes is 10"),
    ):
        with pytest.raises(UsageError, match=named):
            robot.add(frames[0], **terms)  # type: ignore[arg-type]
    robot.map = None
    with pytest.raises(MapError, match=r"make one with runtime\.MapWriter"):
        robot.add(frames[0])


def _places(count: int, seed: int = 0, kind: str = "int8") -> tuple[MapInfo, Places]:
    info = MapInfo("ab" * 32, kind, 16, (Band(1.0),))
    rng = np.random.default_rng(seed)
    return info, make_places(
        info,
        [directions(count, 16, seed)],
        tags=[f"{seed}.{index}" for index in range(count)],
        drives=np.sort(rng.integers(0, 3, count)),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.booleans())
def test_added_places_are_those_in_their_order_whoever_else_adds(
    counts: list[int], forked: bool
) -> None:
    added, tags = Added(_places(3)[1]), [f"0.{index}" for index in range(3)]
    for seed, count in enumerate(counts, 1):
        before, kept = added, added.places()
        added = added.plus(_places(count, seed)[1])
        tags += [f"{seed}.{index}" for index in range(count)]
        if forked:  # another copy of the map adds behind the same places
            other = before.plus(_places(5, 99)[1])
            assert other.places().tags[len(before) :] == tuple(f"99.{i}" for i in range(5))
        assert before.places().tags == kept.tags
        assert np.array_equal(before.places().rows[0].data, kept.rows[0].data)
    assert added.places().tags == tuple(tags)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 60), st.integers(0, 5), st.sampled_from(["int8", "binary", "weighed"]), st.data()
)
def test_pruning_drops_as_many_as_asked_and_never_a_confirmed_one(
    count: int, seed: int, kind: str, data: st.DataObject
) -> None:
    info, places = _places(count, seed, kind)
    confirmed = data.draw(st.sets(st.integers(0, count - 1), max_size=count // 2))
    places.moments["confirmed"][sorted(confirmed)] = 1
    most = data.draw(st.integers(max(len(confirmed), 1), count))
    pruned = prune(info, places, most)
    assert len(pruned.keep) == most and pruned.dropped == count - most
    assert confirmed <= set(pruned.keep.tolist())
    assert np.all(np.diff(pruned.keep) > 0)
    order = along_drives(places)
    likeness = neighbour_scores(info, places, order[:-1], order[1:])
    assert np.all(likeness <= 1 + 1e-6)
