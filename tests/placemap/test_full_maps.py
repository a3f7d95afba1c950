"""What was confirmed stays, whoever prunes the map, and a full map says that it is full."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.artifacts import scenes
from support.maps import directions
from tatvpr_edge.mapping import lean_map
from tatvpr_edge.runtime import Localizer, MapWriter, PlaceMap
from tatvpr_edge.runtime.recognition import Lately
from tatvpr_edge.spec.errors import MapError, TatvprError
from tatvpr_edge.spec.maptypes import Band, MapInfo, Rows, make_places
from tatvpr_edge.spec.placemap import write_map


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
    with pytest.raises(
        MapError, match="5 of 5 places were confirmed, and those stay: keep 5 or more, not 4"
    ):
        robot.map.prune(4)
    assert len(robot.map) == len(PlaceMap(robot.map.path)) == 5
    with pytest.raises(MapError, match="has no place 5"):
        robot.confirm(5)


def test_a_place_that_was_confirmed_for_years_stays_confirmed(robot: Localizer) -> None:
    """A byte counts how often: 256 times are no 0 times."""
    for row in directions(3, robot.descriptor_size):
        robot.add(row)
    assert robot.map is not None
    for times, counted in ((100, 100), (50, 150), (106, 255), (1, 255)):
        for _ in range(times):
            robot.confirm(1)
        robot.map.prune(3)
        assert robot.map.stored.places().moments["confirmed"].tolist() == [0, counted, 0]


def test_a_limit_in_bytes_holds_for_the_files(robot: Localizer) -> None:
    assert robot.map is not None
    most = 1 << 16
    for row in directions(500, robot.descriptor_size):
        robot.add(row, tag="some name of a frame.jpg", max_bytes=most)
        assert robot.map.file_bytes <= most
    sizes = [p.stat().st_size for p in robot.map.path.parent.glob("drive.placemap*")]
    assert sum(sizes) <= most + 4096  # and a lock beside them
    assert len(robot.map) > 200


def test_what_cannot_be_added_to_a_full_map_drops_nothing(robot: Localizer) -> None:
    """A tenth of it had made room for odometry that was not there yet."""
    rows = directions(21, robot.descriptor_size)
    for row in rows[:20]:
        robot.add(row, max_places=20)
    assert robot.map is not None
    before, nan = robot.map.path.read_bytes(), np.nan
    for wrong in (
        {"pose": (1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0)},
        {"pose": (1.0, 2.0, 0.0, nan, 0.0, 0.0, 1.0)},
        {"pose": (2e9, 0.0)},
        {"tag": "\udc80"},
        {"frame": 0 * rows[20]},
        {"frame": nan * rows[20]},
        {"frame": rows[20][1:]},
    ):
        with pytest.raises(TatvprError):
            robot.add(**{"frame": rows[20], **wrong}, max_places=20)
        assert len(robot.map) == 20 and robot.map.path.read_bytes() == before, wrong
    assert robot.add(rows[20], max_places=20).dropped == 2


def test_of_two_limits_both_hold(robot: Localizer) -> None:
    rows = directions(112, robot.descriptor_size)
    for row in rows[:110]:
        robot.add(row, tag=1000 * "t")
    assert robot.map is not None
    most = robot.map.file_bytes * 7 // 10
    assert robot.add(rows[110], tag=1000 * "t", max_places=110, max_bytes=most).place is not None
    assert robot.map.file_bytes <= most and 50 < len(robot.map) < 77
    most = robot.map.file_bytes
    assert robot.add(rows[111], tag=1000 * "t", max_places=40, max_bytes=most).place is not None
    assert 30 < len(robot.map) <= 40


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


#: Of the tiny model's frames, which are nearly all redundant to it, two that are not.
UNLIKE = [1, 4]


def judged_map(robot: Localizer, tmp_path: Path) -> None:
    """Give ``robot`` an empty map that accepts scores of .9."""
    model = robot.artifact.manifest.model
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band.accepting(1.0, 1.0, 0.9),))
    write_map(tmp_path / "judged", info, [])
    robot.map = tmp_path / "judged"  # type: ignore[assignment]


def test_where_the_robot_just_was_is_not_confirmed_by_its_next_frame(
    robot: Localizer, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    judged_map(robot, tmp_path)
    assert robot.map is not None
    for index, frame in enumerate(frames):
        robot.add(frame, time_s=1000.0 + index)
        assert robot.query(frame, time_s=1001.0 + index).accepted
    assert robot.map.confirmed == 0
    assert robot.query(frames[3], time_s=1100.0).accepted
    assert robot.map.confirmed == 1
    assert robot.query(frames[5], time_s=900.0).accepted  # the clock was set back
    robot.map.prune(2)
    assert robot.map.stored.places().moments["order"].tolist() == [3, 5]


def test_a_robot_that_stands_confirms_nothing_however_long(
    robot: Localizer, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Each stop of more than a minute would leave a place that never goes, until none may go."""
    judged_map(robot, tmp_path)
    assert robot.map is not None
    before, stop = frames[UNLIKE]
    for index, frame in enumerate((before, stop)):
        robot.add(frame, time_s=1001.0 + index)
    for second in range(1003, 1300, 20):
        assert robot.query(stop, time_s=float(second)).accepted
    assert robot.map.confirmed == 0
    assert robot.query(before, time_s=1310.0).accepted  # it drove back
    assert robot.query(stop, time_s=1400.0).accepted  # and came again
    assert robot.query(stop, time_s=1401.0).accepted
    assert robot.map.confirmed == 2
    robot.map.prune(2)
    assert robot.map.stored.places().moments["confirmed"].tolist() == [1, 1]


def test_a_robot_that_stands_and_adds_what_it_sees_confirms_nothing(
    robot: Localizer, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    """It was answered by one old frame of its stop after the other: a night beside the charger left
    a map of that, full of what may never go."""
    judged_map(robot, tmp_path)
    assert robot.map is not None
    before, stop = frames[UNLIKE]
    robot.add(before, time_s=990.0)
    noise = np.random.default_rng(0)
    for second in range(1000, 1300, 10):
        seen = stop ^ noise.integers(0, 2, stop.shape, np.uint8)
        robot.query(seen, time_s=float(second), exclude_last="30s")
        robot.add(seen, time_s=float(second))
    assert len(robot.map) == 31 and robot.map.confirmed == 0
    assert robot.query(before, time_s=1310.0).accepted  # it drove back
    assert robot.query(stop, time_s=1400.0).accepted  # and came again
    assert robot.map.confirmed == 2


def test_a_robot_that_stands_confirms_nothing_however_much_is_left_out(
    robot: Localizer, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    """The first place that was named again was older than a minute, and so confirmed."""
    judged_map(robot, tmp_path)
    assert robot.map is not None
    robot.add(frames[2], time_s=1000.0)
    for second in range(1000, 1400, 20):
        robot.query(frames[2], time_s=float(second), exclude_last="90s")
    assert robot.map.confirmed == 0
    assert robot.query(frames[2], time_s=1500.0, exclude_last="90s").accepted  # it came again
    assert robot.map.confirmed == 1


def test_a_frame_of_nothing_confirms_no_place(robot: Localizer, tmp_path: Path) -> None:
    """However like a place its descriptor is; with a covered lens, a map would fill with what
    must stay."""
    model = robot.artifact.manifest.model
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band.accepting(1.0, 1.0, -1.0),))
    write_map(tmp_path / "judged", info, [])
    robot.map = tmp_path / "judged"  # type: ignore[assignment]
    robot.add(scenes(1)[0], time_s=1000.0)
    assert robot.map is not None
    match = robot.query(np.zeros((48, 64, 3), np.uint8), time_s=2000.0)
    assert match.place == 0 and not match.accepted and robot.map.confirmed == 0
    assert robot.query(scenes(2)[1], time_s=2000.0).accepted and robot.map.confirmed == 1


class Late:
    """The number of a place; the map is pruned after it was asked for so many times."""

    def __init__(self, place: int, after: int, pruned: PlaceMap) -> None:
        self.place, self.after, self.pruned = place, after, pruned

    def __index__(self) -> int:
        self.after -= 1
        if self.after == 0:
            self.pruned.prune(2)
        return self.place


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("ask", [PlaceMap.tag, PlaceMap.pose])
def test_what_is_asked_of_a_place_is_of_one_moment(
    robot: Localizer, ask: Callable[[PlaceMap, Any], Any], after: int
) -> None:
    """Another thread pruned the map between a look at its length and the next at its places."""
    rows = directions(9, robot.descriptor_size)
    for number, row in enumerate(rows):
        robot.add(row, (number, 0.0), tag=f"{number}")
    place_map = robot.map
    assert place_map is not None
    place_map.prune(8)
    robot.add(rows[0], (9.0, 0.0), tag="9")
    wanted = np.asarray(ask(place_map, 8)).tobytes()
    assert np.asarray(ask(place_map, Late(8, after, place_map))).tobytes() == wanted


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


def test_places_that_came_to_lean_on_their_neighbours_stay_confirmed(robot: Localizer) -> None:
    """They were known by what they hold, which `map lean` changes under a program."""
    assert robot.map is not None
    rows = directions(6, robot.descriptor_size)
    for number, row in enumerate(rows):
        robot.add(row, (float(number), 0.0), tag=f"{number}")
    path = robot.map.path
    match = robot.query(scenes(1)[0])
    for place in (1, 4):
        robot.confirm(place)
    assert lean_map(path).neighbours == 6
    robot.add(directions(7, robot.descriptor_size)[6], (9.0, 9.0))
    assert robot.map.info.neighbours
    robot.confirm(match)
    assert robot.map.confirmed == len({1, 4, match.place})


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


@pytest.mark.parametrize("kind", ["int8", "binary", "weighed"])
def test_spots_of_the_last_minute_are_told_apart_in_every_kind_of_map(kind: str) -> None:
    info = MapInfo("ab" * 32, kind, 64, (Band(1.0),))
    twice = np.concatenate([directions(3, 64), directions(3, 64)])
    (rows,) = make_places(info, [twice], np.full((6, 7), np.nan)).rows
    lately = Lately()

    def stays(place: int, time_s: float, of: Lately = lately) -> bool:
        one = slice(place, place + 1)
        norms = None if rows.norms is None else rows.norms[one]
        return of.stays(info, Rows(rows.data[one], norms), time_s)

    assert [stays(place, 10.0 + place) for place in range(3)] == [False] * 3
    assert [stays(place, 40.0) for place in (3, 4)] == [True] * 2
    other = lately.copy()
    assert [stays(0, 95.0, other), stays(1, 99.0, other), stays(2, 99.0, other)] == [
        True, True, False,
    ]  # fmt: skip
    assert stays(5, 45.0), "what a copy was asked is nothing to the first"
