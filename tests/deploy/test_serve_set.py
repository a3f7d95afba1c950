"""What a client sets for all programs: everything that it names, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.serving import FRAME, serving
from tatvpr_edge.runtime import Client, Localizer
from tatvpr_edge.spec.errors import TatvprError, UsageError


def settings(client: Client) -> tuple[Any, ...]:
    """What answers now."""
    info, dials = client.info(), client.set()
    return info["map_path"], *(dials.get(name) for name in ("k", "tokens", "budget", "preset"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0.4, "tokens": 5},
        {"map": None, "k": 9.0},
        {"k": 0.4, "map": "nowhere.placemap"},
        {"map": None, "k": "auto", "budget": "much"},
        {"tokens": 0.5, "k": "auto", "preset": "slow"},
        {"tokens": 0.5, "k": "auto"},
        {"k": 0.4, "buget": "5W"},
        {"K": 0.4},
        {"k": "auto", "budget": object()},
    ],
)
def test_what_is_refused_changes_nothing(
    served: tuple[Path, Localizer], wrong: dict[str, Any]
) -> None:
    with Client(served[0]) as client:
        before = settings(client)
        with pytest.raises(TatvprError):
            client.set(**wrong)
        assert settings(client) == before


def test_a_name_that_cannot_be_set_is_told_with_those_that_can(
    served: tuple[Path, Localizer],
) -> None:
    with (
        Client(served[0]) as client,
        pytest.raises(UsageError, match=r"'buget': it takes .* budget"),
    ):
        client.set(buget="5W")


def test_a_budget_takes_the_place_of_a_preset_and_a_number_of_both(
    tiny_host: Path, tmp_path: Path
) -> None:
    words = ["--artifact", str(tiny_host), "--k", "auto", "--preset", "turbo"]
    with serving(tmp_path / "s.sock", *words), Client(tmp_path / "s.sock") as client:
        now = client.set(preset=None, budget="40ms")
        assert (now["preset"], now["budget"]) == (None, "40 ms")
        now = client.set(budget=None, preset="battery-saver")
        assert (now["preset"], now["budget"]) == ("battery-saver", None)
        assert client.set(k=1.0, preset=None, budget=None)["k"] == 1.0
        with pytest.raises(UsageError, match="needs a budget"):
            client.set(k="auto")


def test_numbers_of_numpy_are_numbers(served: tuple[Path, Localizer]) -> None:
    path, here = served
    with Client(path) as client:
        before = client.info()["k"]
        now = client.set(k=np.float32(0.5), tokens=np.float64(1.0))
        assert (now["k"], now["tokens"]) == (0.5, 1.0)
        client.set(k=before)
        found = client.query(FRAME, top=np.int64(2), exclude_last=np.int64(1))
        assert found.score == here.query(FRAME, exclude_last=1).score
        terms = {"novelty": np.float32(-1), "max_places": np.int64(50), "max_bytes": np.int64(1e9)}
        assert client.add(FRAME, **terms).place is None
