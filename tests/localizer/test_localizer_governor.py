"""``k="auto"`` with a budget: what queries take reaches the governor, its choice the queries."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tatvpr_edge.runtime import Localizer, Match
from tatvpr_edge.runtime.backends.cpu import CpuBackend
from tatvpr_edge.runtime.governor import Budget, Reason
from tatvpr_edge.runtime.telemetry import FedSource, Sampler
from tatvpr_edge.spec.artifact import replace_profile
from tatvpr_edge.spec.errors import UsageError

U8 = NDArray[np.uint8]


@pytest.fixture
def profiled(tiny_host: Path, tmp_path: Path) -> Path:
    """A copy of the artifact with a made-up profile of three settings."""
    shutil.copytree(tiny_host, tmp_path / "profiled")
    points = [
        {"k": k, "tokens": 1.0, "latency_ms": {"p50": 10 * k, "p95": 11 * k, "p99": 12 * k}}
        for k in (0.2, 0.4, 1.0)
    ]
    replace_profile(tmp_path / "profiled", {"device": {}, "points": points})
    return tmp_path / "profiled"


def until(what: Callable[[], bool]) -> None:
    """Repeats until it holds; the governor decides four times a second."""
    for _ in range(600):
        if what():
            return
        time.sleep(0.02)
    pytest.fail("it does not come to hold")


def test_queries_within_the_budget_let_k_rise(profiled: Path, scene_map: Path, frames: U8) -> None:
    with Localizer(profiled, scene_map, k="auto", budget="1000000ms") as localizer:
        assert localizer.query(frames[0]).k == 0.2  # nothing is known yet
        until(lambda: localizer.query(frames[1]).k == 1.0)
        assert localizer.governor is not None
        assert localizer.governor.reason in (Reason.ROOM, Reason.SETTLING, Reason.BEST)


@pytest.mark.parametrize("kernels", ["portable", None])
def test_without_a_profile_no_level_saves_nothing_on_this_processor(
    tiny_host: Path, kernels: str | None
) -> None:
    """From the k on at which every product runs dense, the largest k alone is a level."""
    with Localizer(tiny_host, k="auto", preset="turbo", kernels=kernels) as localizer:
        assert isinstance(localizer.backend, CpuBackend) and localizer.governor is not None
        below = localizer.backend.library.pays_below
        # So small a model is dense at every k on some processors: 0 there, but not in plain C.
        assert (0.1 if kernels == "portable" else 0.0) <= below <= 1.0
        levels = [level.k for level in localizer.governor.levels]
    assert levels == [*(k for k in (0.2, 0.4, 0.6) if k < below), 1.0]


def test_descriptions_alone_let_k_rise_too(profiled: Path, frames: U8) -> None:
    with Localizer(profiled, k="auto", budget="1000000ms") as localizer:
        governor = localizer.governor
        assert governor is not None

        def risen() -> bool:
            localizer.describe(frames[0])
            return governor.choose().k == 1.0

        until(risen)


def test_queries_beyond_the_budget_are_seen(profiled: Path, scene_map: Path, frames: U8) -> None:
    with Localizer(profiled, scene_map, k="auto", budget="0.001ms") as localizer:
        governor = localizer.governor
        assert governor is not None

        def impossible() -> bool:
            assert localizer.query(frames[0]).k == 0.2
            return governor.reason is Reason.IMPOSSIBLE

        until(impossible)
        assert "cannot be held" in governor.why()


def test_the_whole_query_counts_with_its_search(
    profiled: Path, scene_map: Path, frames: U8
) -> None:
    with Localizer(profiled, scene_map, k="auto", budget="0.001ms") as localizer:
        governor = localizer.governor
        assert governor is not None
        matches: list[Match] = []

        def three_are_seen() -> bool:
            matches.append(localizer.query(frames[len(matches) % 12]))
            return governor.reason is Reason.IMPOSSIBLE

        until(three_are_seen)
        figures = governor.figures()
        seen_ms = [match.latency_ms for match in matches]
        assert min(seen_ms) <= figures.query_ms <= max(seen_ms)
        assert 0.0 < figures.search_ms < figures.query_ms
        assert "of which search" in governor.why()


def test_queries_at_a_fixed_k_are_not_the_governors(
    profiled: Path, scene_map: Path, frames: U8
) -> None:
    with Localizer(profiled, scene_map, k="auto", budget="1000000ms") as localizer:
        assert localizer.governor is not None
        localizer.k = 1.0
        for frame in frames:
            localizer.query(frame)
        time.sleep(0.3)
        assert localizer.governor.choose().reason == "start"


def test_what_was_drawn_at_a_fixed_k_is_not_held_against_auto(profiled: Path) -> None:
    """Queries of then are not the governor's: all that they drew was taken for another load, and
    for half a minute there was no room for its own."""
    now_s = 50.0
    source = FedSource(clock=lambda: now_s)
    sampler = Sampler([source], clock=lambda: now_s)
    with Localizer(profiled, k="auto", budget="2W", safe_k=1.0, telemetry=sampler) as localizer:
        governor = localizer.governor
        assert governor is not None
        governor.choose(now_s)
        localizer.k = 1.0
        for second in range(30):
            now_s += 1.0
            source.feed(power_w=3.0 + second % 2)
            sampler.sample()
        localizer.k = "auto"
        assert governor.choose(now_s).k == 1.0


def test_what_is_added_asks_the_governor_nothing(
    profiled: Path, frames: U8, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place was a step of the governor's in which nobody asked it for anything."""
    with Localizer(profiled, k="auto", budget="0.001ms") as localizer:
        governor = localizer.governor
        assert governor is not None
        for frame in frames[:4]:
            localizer.describe(frame)
        monkeypatch.setattr(governor, "_clock", lambda: time.monotonic() + 1.0)
        localizer.describe(frames[0], k=0.4, tokens=1.0)
        assert governor.reason is Reason.START
        localizer.describe(frames[0], tokens=1.0)
        assert governor.reason is Reason.IMPOSSIBLE


@pytest.mark.parametrize(
    ("argument", "value"), [("budget", "5W"), ("preset", "turbo"), ("safe_k", 0.4)]
)
@pytest.mark.parametrize("k", [None, 0.2])
def test_what_a_fixed_k_would_ignore_is_refused(
    profiled: Path, argument: str, value: object, k: float | None
) -> None:
    with pytest.raises(UsageError, match=f'{argument}=.* belongs to k="auto"'):
        Localizer(profiled, k=k, **{argument: value})


def test_k_may_go_back_to_auto_and_a_budget_may_come_later(profiled: Path, frames: U8) -> None:
    with Localizer(profiled, k=0.4) as localizer:
        with pytest.raises(UsageError, match="needs a budget"):
            localizer.k = "auto"
        assert localizer.k == 0.4
        localizer.budget = "1000000ms"
        assert localizer.k == 0.4  # a budget waits until k is "auto"
        localizer.k = "auto"
        localizer.k = 0.2
        localizer.k = "auto"
        governor = localizer.governor
        assert governor is not None and str(governor.budget) == "1000000 ms"
        localizer.budget = Budget(latency_ms=0.001)
        assert localizer.governor is not governor
        for wrong in ("5 bananas", None):
            with pytest.raises(UsageError, match="budget"):
                localizer.budget = wrong
        assert localizer.budget == Budget(latency_ms=0.001)  # as it was
        with pytest.raises(UsageError, match="choose turbo or battery-saver"):
            localizer.preset = "eco"
        localizer.preset = "turbo"
        localizer.budget = None
        assert localizer.governor is not None
        localizer.describe(frames[0])
        assert localizer.governor.choose().k == 1.0


def test_the_terms_travel_to_a_process_that_is_spawned(profiled: Path) -> None:
    with Localizer(profiled, k="auto", budget="1000000ms", preset="turbo") as localizer:
        localizer.k = 0.4
        with pickle.loads(pickle.dumps(localizer)) as again:
            assert again.k == 0.4
            again.k = "auto"
            assert (again.budget, again.preset) == (Budget(latency_ms=1e6), "turbo")


def test_a_sensor_that_blocks_at_the_start_leaves_the_safe_k(
    profiled: Path, frames: U8, tmp_path: Path
) -> None:
    power = tmp_path / "board/sys/class/power_supply/BAT0"
    power.mkdir(parents=True)
    os.mkfifo(power / "type")  # looking what this is waits for ever
    sampler = Sampler(root=str(tmp_path / "board"))
    sampler.start()
    with Localizer(profiled, k="auto", budget="5W", safe_k=0.4, telemetry=sampler) as localizer:
        localizer.describe(frames[0])
        assert localizer.governor is not None
        choice = localizer.governor.choose()
        assert (choice.k, choice.reason) == (0.4, "no-telemetry")
        assert "has not answered" in localizer.governor.why()
    sampler.stop()
    os.close(os.open(power / "type", os.O_RDWR | os.O_NONBLOCK))  # lets the reader go


def test_a_sampler_that_nobody_started_is_named(profiled: Path, frames: U8) -> None:
    with Localizer(profiled, k="auto", budget="5W", telemetry=Sampler()) as localizer:
        localizer.describe(frames[0])
        assert localizer.governor is not None
        assert "was not started: call start()" in localizer.governor.why()


def test_a_localizer_that_is_refused_leaves_no_sensors_running(tiny_host: Path) -> None:
    """They ran until the program ended, a set for each attempt."""
    before = {*threading.enumerate()}
    with pytest.raises(UsageError, match="tokens is 2"):
        Localizer(tiny_host, k="auto", budget="5W", tokens=2)
    assert {*threading.enumerate()} == before


def test_sensors_end_with_their_budget_and_with_the_localizer(tiny_host: Path) -> None:
    before = {*threading.enumerate()}

    def end(threads: set[threading.Thread]) -> None:
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()

    with Localizer(tiny_host, k="auto", budget="5W") as localizer:
        first = {*threading.enumerate()} - before
        localizer.budget = "4W"
        second = {*threading.enumerate()} - before - first
        assert first and second
        end(first)
    end(second)


def test_a_closed_localizer_starts_no_sensors(tiny_host: Path) -> None:
    """They ran until the program ended."""
    localizer = Localizer(tiny_host, k=0.2)
    localizer.close()
    for name, value in {"budget": "5W", "k": "auto", "tokens": 0.5}.items():
        with pytest.raises(UsageError, match="this Localizer is closed"):
            setattr(localizer, name, value)
    assert localizer.governor is None and localizer.k == 0.2
