"""`Governor` as a Localizer uses it: profile, budget, sensors in files, latencies, why()."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import board_trees as boards
import pytest

from tatvpr_edge.compilers.governor import host_governor
from tatvpr_edge.runtime.governor import Budget, Choice, Governor, Reason
from tatvpr_edge.runtime.telemetry import FedSource, Sampler
from tatvpr_edge.spec.errors import UsageError

PROFILE = {
    "device": {"machine": "test"},
    "points": [
        {
            "k": k,
            "tokens": 1.0,
            "latency_ms": {"p50": ms, "p95": ms * 1.1, "p99": ms * 1.2},
            "energy_mj": mj,
            "macs": int(1e6 * ms),
        }
        for k, ms, mj in ((1.0, 60.0, 400.0), (0.6, 40.0, 260.0), (0.2, 20.0, 120.0))
    ],
}


@dataclass
class Robot:
    """A board made of files, four queries a second, and a clock in the test's hand."""

    root: Path
    load_mw: float = 1000.0
    now_s: float = 50.0
    log: list[Choice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.monitor = boards.orin_nano(self.root)
        boards.zones(self.root, tj_thermal=50_000)
        self.sampler = Sampler(root=str(self.root), clock=lambda: self.now_s)

    def run(self, governor: Governor, seconds: float) -> Choice:
        for _ in range(round(seconds / 0.25)):
            self.now_s += 0.25
            choice = governor.choose()
            point = next(p for p in PROFILE["points"] if p["k"] == choice.k)
            drawn_mw = self.load_mw + 4.0 * point["energy_mj"]
            boards.put(self.monitor, "in1_input", 5000)
            # The last digit moves, as a real converter's does.
            boards.put(self.monitor, "curr1_input", drawn_mw / 5.0 + len(self.log) % 3)
            self.sampler.sample()
            governor.observe(point["latency_ms"]["p50"], choice.k, choice.tokens)
            self.log.append(choice)
        return governor.choose()


@pytest.fixture
def robot(tmp_path: Path) -> Robot:
    return Robot(tmp_path)


def governor_of(robot: Robot, **arguments: object) -> Governor:
    return Governor(
        host_governor(), PROFILE, telemetry=robot.sampler, clock=lambda: robot.now_s, **arguments
    )


def test_a_power_budget_is_spent_and_held(robot: Robot) -> None:
    governor = governor_of(robot, budget="2.2W")
    assert governor.choose().k == 0.2  # nothing is known yet
    assert robot.run(governor, 20.0) == Choice(0.6, 1.0, "within")
    robot.load_mw = 1700.0
    assert robot.run(governor, 10.0).k == 0.2
    robot.load_mw = 400.0
    assert robot.run(governor, 60.0) == Choice(1.0, 1.0, "best")


def test_why_says_what_was_measured_and_what_more_would_need(robot: Robot) -> None:
    governor = governor_of(robot, budget=Budget(power_w=2.2))
    robot.run(governor, 20.0)
    said = governor.why()
    for words in (
        "k=0.6: within budget",
        "budget 2.2 W",
        "ina VDD_IN, whole module",
        "at 4.0 a second",
        "k=1 would need 2.6",
        "1 of at most 6 switches",
    ):
        assert words in said
    assert "\n" not in said


def test_lost_telemetry_gives_the_safe_k_and_says_so(robot: Robot) -> None:
    governor = governor_of(robot, budget="9W", safe_k=0.6)
    assert robot.run(governor, 10.0).k == 1.0
    robot.now_s += 3.0  # the sampler stands still
    assert governor.choose() == Choice(0.6, 1.0, "no-telemetry")
    assert "safe setting" in governor.why()
    assert robot.run(governor, 5.0).k == 1.0


@pytest.mark.parametrize("every_s", [60.0, 10.1])
@pytest.mark.parametrize(("load_mw", "k"), [(1000.0, 1.0), (2150.0, 0.2)])
def test_a_robot_that_asks_seldom_is_told_by_what_was_read_meanwhile(
    robot: Robot, load_mw: float, k: float, every_s: float
) -> None:
    """It stayed at its safe k for ever."""
    governor = governor_of(robot, budget="2.2W", safe_k=0.6)
    boards.put(robot.monitor, "in1_input", 5000)
    for _ in range(3):
        choice = governor.choose()
        governor.observe(40.0, choice.k)
        for second in range(60):
            robot.now_s += every_s / 60.0
            boards.put(robot.monitor, "curr1_input", load_mw / 5.0 + second % 3)
            robot.sampler.sample()
    assert governor.choose().k == k


def test_what_is_read_after_a_clock_went_back_is_kept_as_well(robot: Robot) -> None:
    """Nothing was, until the clock was where it had been."""
    for step_s in (1.0, 1.0, 1.0, -1.5, 1.0):
        robot.now_s += step_s
        robot.sampler.sample()
        times = [point.time_s for point in robot.sampler.history()]
        assert times[-1] == robot.now_s and times == sorted(times)


def test_an_unreadable_sensor_is_named(robot: Robot) -> None:
    governor = governor_of(robot, budget="9W")
    robot.run(governor, 5.0)
    (robot.monitor / "in1_input").unlink()
    for _ in range(16):
        robot.now_s += 0.25
        robot.sampler.sample()
        governor.choose()
    assert governor.reason is Reason.NO_TELEMETRY
    assert "ina VDD_IN is absent: " in governor.why()


def test_an_impossible_budget_says_so(robot: Robot) -> None:
    governor = governor_of(robot, budget="0.5W")
    assert robot.run(governor, 10.0) == Choice(0.2, 1.0, "impossible")
    assert "cannot be held" in governor.why()


def test_temperature_comes_from_the_hottest_zone(robot: Robot) -> None:
    governor = governor_of(robot, budget="60C")
    assert robot.run(governor, 45.0).k == 1.0
    boards.zones(robot.root, tj_thermal=66_000)
    robot.run(governor, 20.0)
    assert "tj-thermal" in governor.why()
    assert governor.choose().k == 0.2


def test_a_battery_lasts_until_its_time(robot: Robot) -> None:
    boards.battery(robot.root, power_now=2_000_000, energy_now=2_000_000)  # 7200 J
    robot.sampler = Sampler(root=str(robot.root), clock=lambda: robot.now_s)
    governor = governor_of(robot, budget="battery:1h")  # leaves 2 W
    assert robot.run(governor, 20.0).k == 0.2
    assert "which leaves 2.0" in governor.why()


def test_a_batterys_budget_says_when_its_time_is_over(robot: Robot) -> None:
    """A service goes on for days, with the last minute's limit, which bounds nothing."""
    boards.battery(robot.root, power_now=2_000_000, energy_now=2_000_000)
    robot.sampler = Sampler(root=str(robot.root), clock=lambda: robot.now_s)
    governor = governor_of(robot, budget="battery:30s")
    robot.run(governor, 20.0)
    assert "time is over" not in governor.why()
    robot.run(governor, 15.0)
    assert "whose time is over: which leaves 120.00 W until it is set anew" in governor.why()


def test_a_batterys_budget_counts_all_that_it_feeds(robot: Robot) -> None:
    """The module's own monitor saw neither motors nor radio: the battery was empty long before."""
    boards.battery(robot.root, power_now=9_000_000, energy_now=10_000_000)
    robot.sampler = Sampler(root=str(robot.root), clock=lambda: robot.now_s)
    governor = governor_of(robot, budget="battery:2h")  # leaves 5 W, of which the module takes 2
    assert robot.run(governor, 20.0) == Choice(0.2, 1.0, "impossible")
    assert "measured 9.000 W (battery BAT0" in governor.why()
    boards.battery(robot.root, status="Charging")
    assert robot.run(governor, 60.0).k == 1.0
    assert "(ina VDD_IN" in governor.why()


@pytest.mark.parametrize("told_uw", [0, -1])
def test_a_gauge_that_never_tells_its_power_leaves_the_boards_monitor(
    robot: Robot, told_uw: int
) -> None:
    """0 W, as drivers print that measure none, or an error: the governor stayed at its safe k."""
    boards.battery(robot.root, power_now=told_uw, energy_now=10_000_000)
    power_now = robot.root / "sys/class/power_supply/BAT0/power_now"
    if told_uw < 0:
        boards.answers_eio(power_now)
    robot.sampler = Sampler(root=str(robot.root), clock=lambda: robot.now_s)
    governor = governor_of(robot, budget="battery:2h")
    assert robot.run(governor, 20.0).k == 1.0
    assert "(ina VDD_IN" in governor.why()
    # One that has told it is waited for: a moment without compares no two sources.
    power_now.unlink()
    boards.battery(robot.root, power_now=9_000_000)
    robot.run(governor, 20.0)
    boards.answers_eio(power_now)
    robot.run(governor, 4.0)
    assert governor.reason is Reason.NO_TELEMETRY
    assert robot.run(governor, 60.0).k == 1.0


@pytest.mark.parametrize("budget", ["5W", "60C", "battery:2h"])
def test_a_sampler_that_is_too_slow_for_a_budget_is_refused(robot: Robot, budget: str) -> None:
    """Every reading of it was lost before the next came."""
    slow = Sampler(root=str(robot.root), interval_s=5.0)
    with pytest.raises(UsageError, match=r"interval_s is 5.0: .* at most 1.5 s"):
        Governor(host_governor(), PROFILE, budget, telemetry=slow)
    Governor(host_governor(), PROFILE, "50ms", telemetry=slow)


def test_a_gauge_of_percent_needs_the_batterys_size(robot: Robot) -> None:
    boards.battery(robot.root, power_now=2_000_000, capacity=50)
    robot.sampler = Sampler(root=str(robot.root), clock=lambda: robot.now_s)
    governor = governor_of(robot, budget="battery:1h")
    robot.run(governor, 5.0)
    assert governor.reason is Reason.NO_TELEMETRY
    governor = governor_of(robot, budget="battery:1h@8Wh")  # 4 Wh left: 4 W
    assert robot.run(governor, 10.0).k == 1.0


def test_latency_needs_no_sensor() -> None:
    now_s = 0.0
    governor = Governor(host_governor(), PROFILE, budget="50ms", clock=lambda: now_s)
    assert governor.telemetry is None
    for _ in range(200):
        now_s += 0.25
        choice = governor.choose()
        governor.observe(30.0, choice.k, choice.tokens)
    assert "ms a query" in governor.why()


def test_queries_at_another_k_do_not_mislead_the_latency() -> None:
    now_s = 0.0
    governor = Governor(host_governor(), PROFILE, budget="50ms", clock=lambda: now_s)
    for _ in range(200):
        now_s += 0.25
        choice = governor.choose()
        governor.observe(60.0, 1.0, 1.0)  # someone measures at k = 1, exactly as in the profile
    assert choice.k == 0.6


def test_presets_without_a_budget() -> None:
    turbo = Governor(host_governor(), PROFILE, preset="turbo")
    saver = Governor(host_governor(), PROFILE, preset="battery-saver")
    assert turbo.choose() == Choice(1.0, 1.0, "preset")
    assert saver.choose() == Choice(0.2, 1.0, "preset")
    assert "preset turbo" in turbo.why()


def test_presets_shift_how_a_budget_is_used(robot: Robot) -> None:
    settled = {}
    for preset in ("turbo", None, "battery-saver"):
        governor = governor_of(robot, budget="2.1W", preset=preset)
        settled[preset] = robot.run(governor, 60.0).k
        robot.now_s += 1000.0
    assert settled["turbo"] == 0.6
    assert settled["battery-saver"] == 0.2


def test_without_a_profile_it_says_so_and_tries() -> None:
    governor = Governor(host_governor(), None, budget="50ms", clock=lambda: 0.0)
    assert not governor.ladder.measured
    assert "no measured profile" in governor.why()


@pytest.mark.parametrize(
    ("fed", "why"),
    [
        ({"battery_percent": 81}, 'tells percent only: give its size, as in "battery:2h@50Wh"'),
        ({}, "battery is absent: none tells what it holds"),
    ],
)
def test_a_battery_budget_without_energy_says_what_is_missing(
    fed: dict[str, float], why: str
) -> None:
    """It said "no telemetry", and in the same line what the board draws."""
    source = FedSource("flight controller", clock=lambda: 1.0)
    source.feed(power_w=18.2, **fed)
    sampler = Sampler([source], clock=lambda: 1.0)
    sampler.sample()
    terms = {"telemetry": sampler, "clock": lambda: 1.0}
    governor = Governor(host_governor(), PROFILE, budget="battery:2h", **terms)
    assert governor.choose().reason == "no-telemetry"
    assert why in governor.why() and "18.2" not in governor.why()


@pytest.mark.parametrize("busy", [False, True])
def test_with_no_valid_point_it_does_not_say_that_there_is_no_profile(busy: bool) -> None:
    points = [{**point, "valid": False, "busy": busy} for point in PROFILE["points"]]
    said = Governor(host_governor(), {"points": points}, budget="50ms", clock=lambda: 0.0).why()
    assert "no measured profile" not in said and "no point of the artifact's profile" in said
    assert ("busy_profile=True" in said) is busy


def test_a_profile_of_other_ks_than_the_artifacts_is_named() -> None:
    """It told to profile a quiet board, of points that are valid."""
    made = Governor(host_governor(), PROFILE, "50ms", k_range=(0.05, 0.1), clock=lambda: 0.0)
    why = made.why()
    assert "profile has no k of 0.05 to 0.1" in why and "is valid" not in why


def test_it_tries_settings_only_where_it_does() -> None:
    """A preset alone takes one end, and an energy budget without energies the safe setting."""
    for terms in ({"preset": "turbo"}, {"budget": "50mJ"}):
        assert "by trial" not in Governor(host_governor(), None, **terms, clock=lambda: 0.0).why()


def test_arguments_are_checked() -> None:
    with pytest.raises(UsageError, match="needs a budget"):
        Governor(host_governor(), PROFILE)
    with pytest.raises(UsageError, match="unknown: choose turbo or battery-saver"):
        Governor(host_governor(), PROFILE, preset="eco")
    with pytest.raises(UsageError, match="busy_profile is 'no'"):
        Governor(host_governor(), PROFILE, preset="turbo", busy_profile="no")  # type: ignore
    with pytest.raises(UsageError, match="latency of nan"):
        Governor(host_governor(), PROFILE, preset="turbo").observe(float("nan"), 1.0)


def test_many_threads_may_ask_at_once(robot: Robot) -> None:
    governor = governor_of(robot, budget="2.2W")
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(300):
                robot.now_s += 0.01
                choice = governor.choose()
                governor.observe(30.0, choice.k)
                governor.why()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_the_sampler_that_it_started_ends_with_it() -> None:
    with Governor(host_governor(), PROFILE, budget="5W") as governor:
        assert governor.telemetry is not None
        assert governor.telemetry.running
    assert not governor.telemetry.running
