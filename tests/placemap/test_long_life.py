"""A map's life: whoever adds, prunes, folds, dies or puts another file there, in any order, places
are those of a plain list, and a search finds what NumPy finds among them."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support.deaths import dies_at, fails_beyond
from support.maps import directions
from support.score_reference import best, binary_scores, int8_scores
from tatvpr_edge.runtime import Localizer, MapWriter, PlaceMap
from tatvpr_edge.runtime.mapjournal import compact, journal_path, read_map
from tatvpr_edge.spec.maptypes import Band, MapInfo, Places, make_places
from tatvpr_edge.spec.placemap import write_map
from tatvpr_edge.spec.scores import binary_rows, int8_rows

NOWHERE = np.full(7, np.nan)
SEEN_S = st.just(float("nan")) | st.just(7.0)
ONE = st.integers(0, 2)
ROW = st.integers(0, 7)


@dataclass
class One:
    """A place as it was added."""

    tag: str
    row: int
    drive: int
    order: int


@dataclass
class User:
    """Whoever adds to the map: its drive, and the places that it sees."""

    map: Any
    own: list[One] = field(default_factory=list)
    sees: list[One] = field(default_factory=list)


class Life(RuleBasedStateMachine):
    localizer: Localizer
    parent: Path

    @initialize(kind=st.sampled_from(["int8", "binary"]))
    def begin(self, kind: str) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=self.parent))
        self.path = self.folder / "m.placemap"
        model = self.localizer.artifact.manifest.model
        self.info = MapInfo(model.hash, kind, model.descriptor_size, (Band(1.0),))
        # Eight of each user, of those that die and of exchanged maps: a place of the same row,
        # order and drive, of unknown time, is the same place.
        self.rows = directions(8 * 6, self.info.dim)
        self.stand: list[One] = []
        self.count = 0
        write_map(self.path, self.info, [])
        self.users = [User(MapWriter(self.path, self.localizer)) for _ in range(2)]
        self.users += [User(self.localizer.open_map(self.path)) for _ in range(2)]

    def made(self, row: int, drive: int, order: int) -> One:
        self.count += 1
        return One(f"place {self.count}", row, drive, order)

    def stood(self, places: Places) -> list[One]:
        """Which places of the list these are."""
        by_tag = {one.tag: one for one in self.stand}
        return [by_tag[tag] for tag in places.tags]

    @rule(number=st.integers(0, 3), row=ROW, seen_s=SEEN_S)
    def add(self, number: int, row: int, seen_s: float) -> None:
        user, row = self.users[number], 8 * number + row
        if not any(one in self.stand for one in user.own):  # elsewhere, or none yet: a new drive
            user.own = []
        drive = 1 + max((one.drive for one in self.stand), default=-1)
        one = self.made(row, user.own[0].drive if user.own else drive, len(user.own))
        if isinstance(user.map, PlaceMap):
            place = user.map.add([self.rows[row]], NOWHERE, one.tag, seen_s)
        else:
            place = user.map.add(self.rows[row], None, one.tag, time_s=seen_s)
        assert place == len(self.stand)
        self.stand = [*self.stand, one]
        user.own.append(one)
        user.sees = self.stand

    @rule(number=st.integers(2, 3))
    def catch_up(self, number: int) -> None:
        self.users[number].map.catch_up()
        self.users[number].sees = self.stand

    @rule(number=st.integers(2, 3), most=st.integers(1, 6))
    @precondition(lambda self: self.stand)
    def prune(self, number: int, most: int) -> None:
        user, most = self.users[number], min(most, len(self.stand))
        assert user.map.prune(most).dropped == len(self.stand) - most
        self.stand = self.stood(read_map(self.path).places())
        user.sees = self.stand
        assert len(self.stand) == most

    @rule()
    def fold(self) -> None:
        compact(self.path)
        assert not journal_path(self.path).exists()

    @rule(count=st.integers(0, 3))
    def exchange(self, count: int) -> None:
        self.stand = [self.made(8 * 5 + index, 0, index) for index in range(count)]
        rows, tags = self.rows[8 * 5 :][:count], [one.tag for one in self.stand]
        write_map(self.folder / "other", self.info, [make_places(self.info, [rows], tags=tags)])
        journal_path(self.path).unlink(missing_ok=True)
        os.replace(self.folder / "other", self.path)

    @rule(
        row=ROW, change=st.integers(0, 8), room=st.none() | st.integers(0, 4000), adds=st.booleans()
    )
    def die(self, row: int, change: int, room: int | None, adds: bool) -> None:
        """Amid an addition or folding, which is done or never began."""
        drive, row = 1 + max((one.drive for one in self.stand), default=-1), 8 * 4 + row
        one = self.made(row, drive, 0)

        def work() -> None:
            if adds:
                self.localizer.open_map(self.path).add([self.rows[row]], NOWHERE, one.tag)
            else:
                compact(self.path)

        failed = dies_at(change, work) if room is None else fails_beyond(room, work)
        done = len(read_map(self.path)) - len(self.stand)
        assert done in ({0, 1} if failed and adds else {int(adds)})
        self.stand = [*self.stand, one][: len(self.stand) + done]

    @rule(
        number=st.integers(2, 3),
        row=st.integers(0, 8 * 6 - 1),
        count=st.integers(1, 9),
        last=ONE,
        first=ONE,
    )
    def search(self, number: int, row: int, count: int, last: int, first: int) -> None:
        user, query = self.users[number], self.rows[row] + self.rows[row - 1]
        if len(user.sees) <= first + last:
            return
        rows = self.rows[[one.row for one in user.sees]]
        if self.info.kind == "int8":
            (asked,), (norm,) = int8_rows(query[None])
            every = int8_scores(asked, norm, *int8_rows(rows))
        else:
            every = binary_scores(binary_rows(query[None])[0], binary_rows(rows), self.info.dim)
        looked = every[first : len(every) - last]
        places = best(looked, count)
        found = user.map.search(query, 1.0, count=count, first=first, last=last).candidates
        assert [one.place for one in found] == (places + first).tolist()
        assert [one.score for one in found] == looked[places].tolist()
        assert [one.tag for one in found] == [user.sees[one.place].tag for one in found]

    @invariant()
    def places_are_those_of_the_list(self) -> None:
        seen = [(read_map(self.path).places(), self.stand)]
        seen += [(user.map.stored.places(), user.sees) for user in self.users[2:]]
        for places, wanted in seen:
            assert places.tags == tuple(one.tag for one in wanted)
            assert places.moments["drive"].tolist() == [one.drive for one in wanted]
            assert places.moments["order"].tolist() == [one.order for one in wanted]
        beside = {name.removeprefix("m.placemap") for name in os.listdir(self.folder)}
        left = beside - {"", ".journal", ".journal.torn", ".lock"}
        assert len(left) <= 1, "what killed writers leave is removed by the next"

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


def test_places_are_those_of_a_plain_list_whatever_befalls_a_map(
    tiny_host: Path, ram_path: Path
) -> None:
    with Localizer(tiny_host, k=1.0) as localizer:
        life = type("Life", (Life,), {"localizer": localizer, "parent": ram_path})
        steady = settings(max_examples=16, stateful_step_count=30, derandomize=True)
        run_state_machine_as_test(life, settings=steady)
