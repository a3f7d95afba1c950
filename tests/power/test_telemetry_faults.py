"""What sensors do in the field becomes a stated condition: never a crash, never a made-up zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import board_trees as boards
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.faults import Faults
from support.users import as_other_user
from tatvpr_edge.runtime.telemetry import (
    Condition,
    Reading,
    Role,
    Sampler,
    Snapshot,
    Tree,
    discover,
    read_conditions,
)
from tatvpr_edge.runtime.telemetry.plausible import Plausibility


@dataclass
class Clock:
    """Seconds that the test moves on."""

    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Board:
    """An Orin Nano under a sampler whose clock the test holds."""

    root: Path
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.files = boards.orin_nano(self.root)
        boards.zones(self.root, tj_thermal=50_250)
        self.sampler = Sampler(root=str(self.root), clock=self.clock)

    def after(self, seconds: float, **files: str | float) -> Snapshot:
        """The snapshot ``seconds`` later, with files of the monitor changed first."""
        for name, value in files.items():
            (self.files / name).write_text(f"{value}\n")
        self.clock.now_s += seconds
        return self.sampler.sample()


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_all_is_well(board: Board) -> None:
    snapshot = board.after(1.0)
    assert snapshot.total.value == 4824
    assert snapshot.hottest.value == 50.25
    assert snapshot.total.age_s(board.clock.now_s) == 0.0


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("", Condition.UNREADABLE),
        ("N/A", Condition.UNREADABLE),
        ("nan", Condition.UNREADABLE),
        ("inf", Condition.UNREADABLE),
        ("1 000", Condition.UNREADABLE),
        ("-80", Condition.NEGATIVE),
        ("1000000000", Condition.ABSURD),
    ],
)
def test_what_a_file_may_say(board: Board, text: str, condition: Condition) -> None:
    total = board.after(0.25, curr1_input=text).total
    assert (total.value, total.condition) == (None, condition)
    assert board.after(0.25, curr1_input=1000).total.value == 4824


#: What a sensor's file may hold when its driver, bus or file system fails.
BROKEN = [
    *(
        "",
        "\n",
        " ",
        "nan",
        "inf",
        "-inf",
        "-1",
        "-2147483648",
        "1e999",
        "0x10",
        "4824 mW",
        "4,824",
    ),
    *("4824\n4824", "\x00", "error", "None", "9" * 400, "99999999999", "1.2.3", "--5", "\x1b[2J"),
]


def test_a_sensor_that_breaks_never_makes_power_up(tmp_path: Path, faults: Faults) -> None:
    names = sorted(path.name for path in Board(tmp_path / "first").files.iterdir())
    for name in names:
        board = Board(tmp_path / name)
        before, file = board.sampler.sample().total, board.files / name
        if not before.ok or not file.is_file():
            continue
        kept = file.read_text()
        for broken in BROKEN:
            file.write_text(broken)
            board.clock.now_s += 0.05  # all of it within the time that a quiet rail may rest
            total = board.sampler.sample().total
            what = (name, broken)
            faults.count("telemetry", not total.ok or total.value == before.value, what)
            file.write_text(kept)
            for _ in range(4):  # a value that jumps back is believed once it repeats
                board.clock.now_s += 0.05
                total = board.sampler.sample().total
                assert not total.ok or total.value == before.value, what
            assert total.ok, what
    assert faults.injected["telemetry"] > 200


def test_bytes_that_are_no_text(board: Board) -> None:
    (board.files / "curr1_input").write_bytes(b"\xff\xfe\x00\x01")
    assert board.after(0.25).total.condition is Condition.UNREADABLE


def test_a_file_that_disappears(board: Board) -> None:
    (board.files / "curr1_input").unlink()
    total = board.after(0.25).total
    assert total.condition is Condition.ABSENT
    assert "curr1_input: ENOENT" in total.detail


def test_the_bus_fails_in_mid_read(board: Board) -> None:
    boards.answers_eio(board.files / "curr1_input")
    snapshot = board.after(0.25)
    assert snapshot.total.condition is Condition.IO_ERROR
    assert "EIO" in snapshot.total.detail
    others = {r.name: r.value for r in snapshot.readings if r.role is Role.RAIL}
    assert others["VDD_SOC"] == 1475  # one bad rail does not hide the others


def test_files_that_this_user_may_not_read(tmp_path: Path) -> None:
    boards.rapl(tmp_path, 1_000_000)
    (source,) = discover(Tree(tmp_path)).sources
    with as_other_user(tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"):
        total = source.read(1.0)[-1]
    assert total.condition is Condition.DENIED
    assert "run as root" in total.detail


def test_folders_that_this_user_may_not_look_into(tmp_path: Path) -> None:
    """An /opt of root's alone ended the threads that look for sensors, and `profile`."""
    folders = [tmp_path / name for name in ("opt", "usr", "sys")]
    for folder in folders:
        (folder / "bin").mkdir(parents=True)
    with as_other_user(*folders):
        tree = Tree(tmp_path)
        found = discover(tree)
        assert found.sources == [] and {"tegrastats", "pmic", "battery"} <= found.missing.keys()
        assert read_conditions(tree).power_mode is None


def test_a_renamed_input_rail_is_not_added_to_its_own_parts(tmp_path: Path) -> None:
    boards.ina3221(
        tmp_path,
        {
            1: ("VDD_IN_SYS", 5000, 1000),
            2: ("VDD_CPU_GPU_CV", 5000, 100),
            3: ("VDD_SOC", 5000, 300),
        },
    )
    total = discover(Tree(tmp_path)).sources[0].read(0.0)[-1]
    assert (total.value, total.condition) == (None, Condition.UNKNOWN_RAIL)
    assert "VDD_IN_SYS" in total.detail


def test_a_set_of_rails_that_lacks_one(tmp_path: Path) -> None:
    boards.ina3221(tmp_path, {1: ("VDD_GPU_SOC", 8000, 199), 2: ("VDD_CPU_CV", 5000, 100)})
    total = discover(Tree(tmp_path)).sources[0].read(0.0)[-1]
    assert total.condition is Condition.INCOMPLETE
    assert "VIN_SYS_5V0" in total.detail


def test_a_negative_rail_leaves_the_sum_incomplete(tmp_path: Path) -> None:
    boards.agx_orin(tmp_path, cpu_ma=-79.6)
    readings = {reading.name: reading for reading in discover(Tree(tmp_path)).sources[0].read(0.0)}
    assert readings["VDD_CPU_CV"].detail == "-398 mW"
    assert readings["sum of rails"].condition is Condition.INCOMPLETE


def test_a_changed_unit_ends_at_the_ceiling(board: Board) -> None:
    board.after(1.0)
    assert board.after(0.25, in1_input=4_824_000).total.condition is Condition.ABSURD


def test_a_ten_fold_jump_is_not_believed_until_it_repeats(board: Board) -> None:
    for _ in range(5):
        board.after(0.25)
    glitch = board.after(0.25, curr1_input=12_000).total
    assert (glitch.value, glitch.condition) == (None, Condition.JUMP)
    assert board.after(0.25, curr1_input=1000).total.value == 4824
    conditions = [board.after(0.25, curr1_input=12_000).total.condition for _ in range(8)]
    assert conditions[0] is Condition.JUMP
    assert conditions[-1] is Condition.OK  # a load that stays is a load


@pytest.mark.parametrize("milliamperes", [12_000, 20])
@pytest.mark.parametrize(("apart_s", "doubted"), [(0.25, 4), (2.0, 2)])
def test_a_jump_up_or_down_is_believed_of_three_samples_over_a_second(
    board: Board, milliamperes: int, apart_s: float, doubted: int
) -> None:
    for _ in range(5):
        board.after(apart_s)
    totals = [board.after(apart_s, curr1_input=milliamperes).total for _ in range(6)]
    assert [total.condition for total in totals] == (
        [Condition.JUMP] * doubted + [Condition.OK] * (6 - doubted)
    )


def test_glitches_apart_from_each_other_are_never_believed(board: Board) -> None:
    for _ in range(5):
        board.after(0.25)
    for _ in range(5):
        assert board.after(0.25, curr1_input=12_000).total.condition is Condition.JUMP
        assert all(board.after(0.25, curr1_input=1000).total.ok for _ in range(3))


def test_a_board_that_wakes_may_draw_ten_times_as_much(board: Board) -> None:
    for milliamperes in (*[10] * 5, 200, 10):  # 48 mW and 965 mW
        assert board.after(0.25, curr1_input=milliamperes).total.ok


def test_a_stuck_value(board: Board) -> None:
    conditions = [board.after(1.0).total.condition for _ in range(70)]
    assert conditions[30] is Condition.OK
    assert conditions[-1] is Condition.STUCK
    assert board.after(0.0).total.condition is Condition.STUCK  # though asked twice at once
    assert board.after(1.0, curr1_input=1001).total.ok


def test_a_few_equal_samples_far_apart_are_not_stuck(board: Board) -> None:
    assert all(board.after(100.0).total.ok for _ in range(5))


@pytest.mark.parametrize(("critical_ma", "highest_ma"), [(4000, 6000), (500, 12_000), (0, 12_000)])
def test_a_monitor_s_limit_is_believed_where_it_allows_what_the_board_draws(
    tmp_path: Path, critical_ma: int, highest_ma: int
) -> None:
    (boards.orin_nano(tmp_path) / "curr1_crit").write_text(f"{critical_ma}\n")
    board = Board(tmp_path)
    for milliamperes in (1000, highest_ma - 1, highest_ma + 1):
        for _ in range(6):
            snapshot = board.after(1.0, curr1_input=milliamperes)
        of = [one for one in snapshot.readings if (one.name, one.role) == ("VDD_IN", Role.RAIL)]
        believed = milliamperes < highest_ma or critical_ma <= 1000
        for reading in (*of, snapshot.total):
            assert reading.condition is (Condition.OK if believed else Condition.ABSURD)


def test_no_sum_holds_a_rail_beyond_its_monitor_s_limit(tmp_path: Path) -> None:
    boards.agx_orin(tmp_path)
    (gpu,) = tmp_path.glob(f"{boards.I2C}/ina3221/1-0040/hwmon/*/curr1_input")
    (gpu.parent / "curr1_crit").write_text("4000\n")
    clock = Clock()
    sampler = Sampler(root=str(tmp_path), clock=clock)
    assert sampler.sample().total.ok
    gpu.write_text("6001\n")
    clock.now_s += 1.0
    total = sampler.sample().total
    assert total.condition is Condition.INCOMPLETE
    assert total.detail == "VDD_GPU_SOC: absurd: 48008 mW is above 48000"


def test_a_clock_that_goes_back_makes_nothing_younger_than_now(board: Board) -> None:
    total = board.after(1.0).total
    board.clock.now_s -= 50.0
    assert total.age_s(board.clock.now_s) == 0.0
    assert board.sampler.sample().total.ok


def test_the_total_stays_with_its_source(tmp_path: Path) -> None:
    board = Board(tmp_path)
    boards.battery(tmp_path, power_now=9_000_000)
    board.sampler = Sampler(root=str(tmp_path), clock=board.clock)
    assert board.after(1.0).total.source == "ina"
    assert board.after(1.0, curr1_input="N/A").total.source == "ina"  # not another meaning at once
    for _ in range(6):
        snapshot = board.after(1.0)
    assert (snapshot.total.source, snapshot.total.value) == ("battery", 9000)
    # A robot that charged, or whose monitor failed for a while, stayed with the lesser for ever.
    assert board.after(1.0, curr1_input=1000).total.source == "battery"
    for _ in range(6):
        snapshot = board.after(1.0)
    assert (snapshot.total.source, snapshot.total.value) == ("ina", 4824)


def test_a_monitor_that_comes_back_under_another_number_is_found(board: Board) -> None:
    assert board.after(1.0).total.ok
    folder = board.files.parent
    away = board.root / "away"
    folder.rename(away)
    assert board.after(1.0).total.condition is Condition.ABSENT
    folder.mkdir()
    (away / "hwmon1").rename(folder / "hwmon4")
    board.after(30.0)
    assert board.after(1.0).total.value == 4824


def test_a_driver_that_loads_later_is_found(tmp_path: Path) -> None:
    clock = Clock()
    sampler = Sampler(root=str(tmp_path), clock=clock)
    assert "no INA3221" in sampler.sample().total.detail
    boards.orin_nano(tmp_path)
    clock.now_s += 30.0
    assert sampler.sample().total.value == 4824


def test_batteries_are_changed_while_the_robot_runs(tmp_path: Path) -> None:
    """One that was put in later was not counted: the power of its robot was none."""
    clock = Clock()
    bay = "sys/class/power_supply/BAT1"
    boards.battery(tmp_path, power_now=5_000_000, energy_now=1_000_000)
    boards.put(tmp_path, f"{bay}/type", "Battery")
    boards.put(tmp_path, f"{bay}/present", 0)
    sampler = Sampler(root=str(tmp_path), clock=clock)
    assert sampler.sample().total.value == 5000
    for name, value in {"present": 1, "status": "Discharging", "power_now": 9_000_000}.items():
        boards.put(tmp_path, f"{bay}/{name}", value)
    boards.put(tmp_path, f"{bay}/energy_now", 2_000_000)
    clock.now_s += 1.0
    snapshot = sampler.sample()
    assert (snapshot.total.value, snapshot.battery_energy.value) == (14_000, 10_800)
    for name in ("BAT0", "BAT1"):
        boards.put(tmp_path, f"sys/class/power_supply/{name}/present", 0)
    clock.now_s += 1.0
    snapshot = sampler.sample()
    assert snapshot.total.condition is Condition.ABSENT
    assert snapshot.battery_energy.condition is Condition.ABSENT


def test_a_source_that_raises_does_not_end_the_others(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def describe(self) -> str:
            return "a source with a bug"

        def read(self, now_s: float) -> list[Reading]:
            raise RuntimeError("a bug")

        def close(self) -> None:
            pass

    boards.orin_nano(tmp_path)
    (ina,) = discover(Tree(tmp_path)).sources
    snapshot = Sampler(sources=[Broken(), ina]).sample()
    assert (snapshot.total.source, snapshot.total.value) == ("ina", 4824)
    assert [r.detail for r in snapshot.readings if r.source == "broken"] == ["RuntimeError: a bug"]


def test_a_command_that_hangs_fails_or_is_no_program(tmp_path: Path) -> None:
    from tatvpr_edge.runtime.telemetry.tree import ReadFault

    tree = Tree(tmp_path)
    slow = boards.command(tmp_path, "slow", "exec sleep 30")
    with pytest.raises(ReadFault, match=r"no answer in 0\.1 s"):
        tree.run(slow, [], timeout_s=0.1)
    wrong = boards.command(tmp_path, "wrong", "echo oh no >&2; exit 3")
    with pytest.raises(ReadFault, match="exit status 3: oh no"):
        tree.run(wrong, [])
    empty = boards.put(tmp_path, "usr/bin/empty", "\x7fELF")
    empty.chmod(0o755)
    with pytest.raises(ReadFault):
        tree.run(empty, [])


values = st.none() | st.floats(min_value=0, max_value=1e6)


@given(st.lists(st.tuples(st.floats(0, 10), values), max_size=60))
def test_plausibility_never_invents_a_value(samples: list[tuple[float, float | None]]) -> None:
    judge, now_s = Plausibility(), 0.0
    for step_s, value in samples:
        now_s += step_s
        condition = Condition.ABSENT if value is None else Condition.OK
        reading = Reading(
            "x", Role.TOTAL, "mW", "s", now_s, value, condition, ceiling=5e5, repeat_limit_s=30
        )
        judged = judge.judge(reading)
        assert judged.value in (None, value)
        assert judged.ok == (judged.value is not None)
        if value is not None and value > 5e5:
            assert judged.condition is Condition.ABSURD


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("role", list(Role))
def test_a_source_of_a_programs_own_may_say_what_is_no_number(role: Role, value: float) -> None:
    """It was the total, was integrated, and ended a profile that had run for minutes."""
    reading = Reading("x", role, "mW", "own", 0.0, value)
    judged = Plausibility().judge(reading)
    assert (judged.value, judged.condition) == (None, Condition.UNREADABLE)


def test_a_reading_has_a_value_exactly_when_it_is_ok() -> None:
    with pytest.raises(ValueError, match="exactly when"):
        Reading("x", Role.TOTAL, "mW", "s", 0.0, None)
    with pytest.raises(ValueError, match="exactly when"):
        Reading("x", Role.TOTAL, "mW", "s", 0.0, 1.0, Condition.STUCK)
