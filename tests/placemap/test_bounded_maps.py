"""The places that a growing map holds: in their order, and no more of them than are wanted."""

from __future__ import annotations

from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.maps import directions
from tatvpr_edge.runtime.growing import Added
from tatvpr_edge.runtime.pruning import along_drives, neighbour_scores, prune
from tatvpr_edge.spec.maptypes import Band, MapInfo, Places, make_places


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


def _thinned(info: MapInfo, places: Places, most: int) -> tuple[list[int], list[float]]:
    """What ``prune`` says that it does, every pair of neighbours looked at anew for each place that
    goes: (places that stay, how alike each other is to a neighbour that stays)."""
    kept = places.moments["confirmed"] > 0
    every = along_drives(places).tolist()
    drives = [list(own) for _, own in groupby(every, lambda place: places.moments["drive"][place])]
    left = [list(own) for own in drives]

    def alike(one: int, other: int) -> float:
        return float(neighbour_scores(info, places, np.array([one]), np.array([other]))[0])

    for _ in range(len(places) - most):
        pairs = [(-alike(*pair), *pair) for own in left for pair in pairwise(own)]
        pairs = [pair for pair in pairs if not (kept[pair[1]] and kept[pair[2]])]
        if pairs:
            _, one, other = min(pairs)
            own = next(own for own in left if one in own)
            at = own.index(one)
            ahead = alike(own[at - 1], one) if at else -np.inf
            behind = alike(other, own[at + 2]) if at + 2 < len(own) else -np.inf
            goes = one if kept[other] or (not kept[one] and ahead > behind) else other
        else:
            goes = min(place for own in left for place in own if not kept[place])
        next(own for own in left if goes in own).remove(goes)
    covered = []
    for goes in sorted({*every} - {place for own in left for place in own}):
        drive = next(number for number, own in enumerate(drives) if goes in own)
        at = drives[drive].index(goes)
        sides = drives[drive][:at][::-1], drives[drive][at + 1 :]
        near = [next((place for place in side if place in left[drive]), None) for side in sides]
        covered.append(max((alike(goes, place) for place in near if place is not None), default=-1))
    return sorted(place for own in left for place in own), covered


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 40), st.integers(0, 5), st.sampled_from(["int8", "binary", "weighed"]), st.data()
)
def test_pruning_drops_the_most_redundant_places_and_never_a_confirmed_one(
    count: int, seed: int, kind: str, data: st.DataObject
) -> None:
    """Of drives that took turns, too: several robots add to one map."""
    info, places = _places(count, seed, kind)
    places.moments["drive"] = np.random.default_rng(seed).integers(0, 3, count)
    confirmed = data.draw(st.sets(st.integers(0, count - 1), max_size=count // 2))
    places.moments["confirmed"][sorted(confirmed)] = 1
    most = data.draw(st.integers(max(len(confirmed), 1), count))
    pruned = prune(info, places, most)
    stay, covered = _thinned(info, places, most)
    assert pruned.keep.tolist() == stay and confirmed <= {*stay} and len(stay) == most
    assert pruned.dropped == count - most and pruned.covered.tolist() == pytest.approx(covered)
    assert pruned.least_covered == pytest.approx(min(covered, default=None))
