"""Orientations of a drive, between two that are known."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tatvpr_edge.mapping.rotation import slerp


@given(
    st.lists(st.floats(-1, 1), min_size=8, max_size=8).filter(
        lambda v: np.linalg.norm(v[:4]) > 0.1 and np.linalg.norm(v[4:]) > 0.1
    ),
    st.floats(0, 1),
)
def test_orientations_between_two_lie_on_the_shortest_turn(v: list[float], part: float) -> None:
    from scipy.spatial.transform import Rotation, Slerp

    ends = np.array(v).reshape(2, 4)
    ends /= np.linalg.norm(ends, axis=1, keepdims=True)
    if abs(ends[0] @ ends[1]) < 1e-3:  # half a turn: both ways are shortest
        return
    expected = Slerp([0, 1], Rotation.from_quat(ends))(part)
    found = slerp(ends[0], ends[1], part)
    assert abs(np.linalg.norm(found) - 1) < 1e-9
    assert (expected.inv() * Rotation.from_quat(found)).magnitude() < 1e-6
