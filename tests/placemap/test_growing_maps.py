"""A robot's map grows while it drives: what is added is found, kept, and thinned out fairly."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support.maps import directions
from tatvpr_edge import runtime
from tatvpr_edge.runtime import Localizer, MapWriter, PlaceMap
from tatvpr_edge.runtime.mapjournal import compact
from tatvpr_edge.spec.errors import MapError, UsageError
from tatvpr_edge.spec.maptypes import make_places
from tatvpr_edge.spec.placemap import write_map


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
    rule = {"novelty": 0.99, "novelty_m": 2.0}
    assert robot.add(frames[0], (0.0, 0.0), **rule).place == 0
    assert robot.add(frames[0], (1.5, 0.0, 7.0), **rule).reason == "place 0 looks like it (1.000)"
    twin = robot.add(frames[0], (50.0, 0.0), **rule)
    assert (twin.place, twin.reason, twin.score) == (1, None, None)
    assert robot.add(frames[1], (0.0, 0.0, 0.0), **rule).place == 2
    assert robot.add(frames[1], (0.0, 0.0, 7.0), **rule).place == 3  # of another floor
    assert robot.add(frames[1], (0.5, 0.0, 0.5), **rule).reason == "place 2 looks like it (1.000)"
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
    robot.k, robot.tokens = 1.0, 0.5
    robot.add(frames[6], match=robot.query(frames[5]))  # of fewer tokens: likewise
    robot.tokens = 1.0
    for frame, place in ((4, 2), (6, 3)):
        match = robot.query(frames[frame])
        assert match.place == place and match.score > 0.999


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


# Python 3.12 and later warn of what is tried here on purpose.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_robot_drives_a_drive_of_its_own(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    """Its places stood in its parent's drive, under the numbers that the parent's had."""
    assert robot.map is not None
    path = robot.map.path
    with MapWriter(path, robot) as writer:
        for one in (robot, writer):
            one.add(frames[0])
        for index in (1, 2):
            child = os.fork()
            if child == 0:
                try:
                    robot.add(frames[index])
                    writer.add(frames[index])
                finally:
                    os._exit(0)
            assert os.waitpid(child, 0) == (child, 0)
        for one in (robot, writer):
            one.add(frames[3])
    moments = PlaceMap(path).stored.added.moments
    assert moments["drive"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert moments["order"].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]


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


def test_places_that_another_program_added_are_seen_with_the_next_of_ours(
    robot: Localizer, tiny_host: Path, frames: NDArray[np.uint8]
) -> None:
    assert robot.map is not None
    with Localizer(tiny_host, robot.map.path, k=1.0) as other:
        other.add(frames[0], tag="theirs")
        assert robot.add(frames[1], tag="ours").place == 1
        assert robot.query(frames[0]).tag == "theirs"


def test_what_another_program_added_is_not_new_and_counts_for_the_limit(
    robot: Localizer, tiny_host: Path, frames: NDArray[np.uint8]
) -> None:
    """A program went by what it had seen of the map: its first frame after a while was added once
    more, or made the map larger than it may be."""
    assert robot.map is not None
    with Localizer(tiny_host, robot.map.path, k=1.0) as other:
        other.add(frames[0])
        assert robot.add(frames[0], novelty=0.9).reason == "place 0 looks like it (1.000)"
        for frame in frames[1:4]:
            other.add(frame)
        assert robot.add(frames[4], max_places=4).dropped == 1
        assert len(robot.map) == len(PlaceMap(robot.map.path)) == 4


def test_a_frame_that_is_not_new_reads_no_map_again_behind_which_an_append_was_cut(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    """All of the map was read for each frame until one was added."""
    assert robot.map is not None
    robot.add(frames[0])
    with open(f"{robot.map.path}.journal", "ab") as journal:
        journal.write(b"torn")
    bases = []
    for _ in range(3):
        assert robot.add(frames[0], novelty=0.9).place is None
        bases.append(robot.map.stored.base)
    assert bases[2] is bases[1] is bases[0]
    assert robot.add(frames[1], novelty=1.0).place == 1
    assert robot.add(frames[1], novelty=0.9).reason == "place 1 looks like it (1.000)"


def test_a_journal_that_cannot_be_read_any_longer_is_told_as_the_maps(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    """An OSError came out of add()."""
    assert robot.map is not None
    robot.add(frames[0])
    journal = Path(f"{robot.map.path}.journal")
    journal.unlink()
    journal.mkdir()
    with pytest.raises(MapError, match=r"cannot read .*journal"):
        robot.add(frames[0], novelty=0.9)


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


def test_a_path_begins_anew_where_another_place_took_the_number_of_its_last(
    robot: Localizer, frames: NDArray[np.uint8]
) -> None:
    assert robot.map is not None
    for frame in frames[:6]:
        robot.add(frame)
    tracker = robot.track(5)
    assert [tracker.query(frame).frames for frame in frames[3:6]] == [1, 2, 3]
    other = PlaceMap(robot.map.path)
    for place in range(5):
        other.confirm(place)
    other.prune(5)
    other.add([robot.describe(frames[7])], np.full(7, np.nan))
    robot.map.catch_up()
    assert len(robot.map) == 6 and tracker.query(frames[4]).frames == 1


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


def test_a_map_that_was_opened_by_its_hash_is_pruned_and_grows_on(
    robot: Localizer, tmp_path: Path
) -> None:
    assert robot.map is not None
    rows, path = directions(4, robot.descriptor_size), tmp_path / "map"
    write_map(path, robot.map.info, [make_places(robot.map.info, [rows[:3]])])
    opened = PlaceMap(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    opened.prune(2)
    with MapWriter(path, robot) as writer:
        writer.add(rows[3])
    assert opened.add([rows[3]], np.full(7, np.nan)) == 3 and len(opened) == 4


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
