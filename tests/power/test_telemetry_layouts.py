"""Every board's sensors are found by themselves and read in the right units."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import board_trees as boards
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatvpr_edge.runtime.telemetry import Condition, Reading, Role, Tree, discover, read_conditions
from tatvpr_edge.runtime.telemetry.conditions import parse_nvpmodel, parse_throttled
from tatvpr_edge.runtime.telemetry.pmic import parse_pmic
from tatvpr_edge.runtime.telemetry.tegrastats import parse_tegrastats


def read_all(root: Path, now_s: float = 1.0) -> list[Reading]:
    found = discover(Tree(root))
    try:
        return [reading for source in found.sources for reading in source.read(now_s)]
    finally:
        found.close()


def by_name(readings: list[Reading], role: Role = Role.RAIL) -> dict[str, float | None]:
    return {reading.name: reading.value for reading in readings if reading.role is role}


def the_total(readings: list[Reading]) -> Reading:
    (total,) = [reading for reading in readings if reading.role is Role.TOTAL]
    return total


def test_orin_nano(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path)
    readings = read_all(tmp_path)
    assert by_name(readings) == {"VDD_IN": 4824, "VDD_CPU_GPU_CV": 518, "VDD_SOC": 1475}
    total = the_total(readings)
    assert (total.value, total.unit, total.source, total.taken_s) == (4824, "mW", "ina", 1.0)
    assert total.covers == "whole module"


def test_a_folder_whose_name_holds_another_kind_of_digit(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path / "board²")
    assert the_total(read_all(tmp_path / "board²")).value == 4824


def test_agx_orin_sums_its_rails_and_skips_what_is_not_connected(tmp_path: Path) -> None:
    boards.agx_orin(tmp_path)
    readings = read_all(tmp_path)
    assert by_name(readings) == {
        "VDD_GPU_SOC": 1592,
        "VDD_CPU_CV": 1000,
        "VIN_SYS_5V0": 2625,
        "VDDQ_VDD2_1V8AO": 400,
    }
    assert the_total(readings).value == 1592 + 1000 + 2625 + 400


def test_xavier_on_jetpack_4(tmp_path: Path) -> None:
    boards.xavier_jetpack4(tmp_path)
    readings = read_all(tmp_path)
    assert by_name(readings)["SOC"] == 1500
    assert the_total(readings).value == 2 * (500 + 1000 + 1500)


def test_jetpack_4_with_power_files_alone(tmp_path: Path) -> None:
    folder = f"{boards.I2C}/ina3221x/6-0040/iio:device0"
    boards.put(tmp_path, f"{folder}/rail_name_0", "POM_5V_IN")
    boards.put(tmp_path, f"{folder}/in_power0_input", 933)
    assert the_total(read_all(tmp_path)).value == 933


def test_thor_takes_its_total_from_the_ina238(tmp_path: Path) -> None:
    boards.thor(tmp_path)
    readings = read_all(tmp_path)
    assert by_name(readings)["VDD_GPU"] == 10000
    assert the_total(readings).value == 31500


def test_ina238_without_a_power_file(tmp_path: Path) -> None:
    folder = f"{boards.I2C}/ina238/2-0044/hwmon/hwmon5"
    for name, value in (("in1_label", "VIN"), ("in1_input", 20000), ("curr1_input", 1250)):
        boards.put(tmp_path, f"{folder}/{name}", value)
    assert the_total(read_all(tmp_path)).value == 25000


def test_monitors_found_by_the_devices_name(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/devices/1-0040"
    boards.put(tmp_path, f"{folder}/name", "ina3221")
    for name, value in (("in1_label", "VDD_IN"), ("in1_input", 5000), ("curr1_input", 900)):
        boards.put(tmp_path, f"{folder}/hwmon/hwmon3/{name}", value)
    assert the_total(read_all(tmp_path)).value == 4500


def test_a_monitor_reached_by_two_paths_is_counted_once(tmp_path: Path) -> None:
    boards.agx_orin(tmp_path)
    devices = tmp_path / "sys/bus/i2c/devices"
    devices.mkdir(parents=True)
    for address in ("1-0040", "1-0041"):
        (devices / address).symlink_to(tmp_path / boards.I2C / "ina3221" / address)
        boards.put(tmp_path, f"{boards.I2C}/ina3221/{address}/name", "ina3221")
    assert the_total(read_all(tmp_path)).value == 1592 + 1000 + 2625 + 400


@pytest.mark.parametrize(
    ("line", "total_mw"),
    [
        (boards.ORIN_NANO_LINE, 4824),
        (boards.THREE_FIGURE_LINE, 5139 + 1000 + 3000 + 500),
        (boards.XAVIER_LINE, 1155 + 385 + 1155 + 308 + 2692),
        (boards.OLD_NANO_LINE, 933),
    ],
)
def test_tegrastats_lines(line: str, total_mw: float) -> None:
    assert the_total(parse_tegrastats(line, 2.0)).value == total_mw


def test_tegrastats_memory_and_clocks_are_no_rails() -> None:
    readings = parse_tegrastats(boards.ORIN_NANO_LINE, 0.0)
    assert set(by_name(readings)) == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}
    temperatures = by_name(readings, Role.TEMPERATURE)
    assert temperatures["tj"] == 50.25
    assert len(temperatures) == 6


def test_tegrastats_negative_rail_is_stated_and_leaves_the_sum_incomplete() -> None:
    readings = parse_tegrastats(boards.AGX_ORIN_LINE, 0.0)
    (cpu,) = [reading for reading in readings if reading.name == "VDD_CPU_CV"]
    assert (cpu.value, cpu.condition, cpu.detail) == (None, Condition.NEGATIVE, "-398 mW")
    total = the_total(readings)
    assert (total.value, total.condition) == (None, Condition.INCOMPLETE)
    assert "VDD_CPU_CV" in total.detail


@given(st.text(max_size=200))
def test_tegrastats_survives_any_line(line: str) -> None:
    total = the_total(parse_tegrastats(line, 0.0))
    assert total.value is None or total.value >= 0


def test_tegrastats_process_is_read_without_waiting_and_ended(tmp_path: Path) -> None:
    boards.command(tmp_path, "tegrastats", f'echo "{boards.ORIN_NANO_LINE}"\nexec sleep 60')
    found = discover(Tree(tmp_path))
    (source,) = [source for source in found.sources if source.name == "tegrastats"]
    first = the_total(source.read(1.0))
    assert first.condition in (Condition.PENDING, Condition.OK)
    for moment in range(2, 400):
        total = the_total(source.read(float(moment)))
        if total.ok:
            break
        time.sleep(0.01)
    assert total.value == 4824
    arrived_s = total.taken_s
    assert the_total(source.read(1e6)).taken_s == arrived_s  # the old line keeps its time
    process = source._process  # type: ignore[attr-defined]
    source.close()
    assert process.poll() is not None


def until(source: Any, value_mw: float) -> None:
    """Reads until a line says so; the clock is the machine's."""
    for _ in range(1000):
        if the_total(source.read(time.monotonic())).value == value_mw:
            return
        time.sleep(0.01)
    pytest.fail(f"no line said {value_mw}")


def test_a_forked_child_takes_no_line_of_its_parents_tegrastats(tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"""echo "VDD_IN 4824mW/4824mW"
while [ ! -e '{go}' ]; do sleep 0.02; done
echo "VDD_IN 5000mW/5000mW"
exec sleep 60"""
    boards.command(tmp_path, "tegrastats", script)
    (source,) = discover(Tree(tmp_path)).sources
    until(source, 4824)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            until(source, 5000)
            source.close()
            status = 0
        os._exit(status)
    go.touch()
    assert os.waitpid(child, 0)[1] == 0
    until(source, 5000)
    source.close()


def test_tegrastats_that_ended_is_started_again(tmp_path: Path) -> None:
    """``tegrastats --stop`` ends every one: the governor stayed at its safe k for ever."""
    boards.command(tmp_path, "tegrastats", f'echo "{boards.ORIN_NANO_LINE}"')
    (source,) = discover(Tree(tmp_path)).sources
    until(source, 4824)
    first_s = the_total(source.read(time.monotonic())).taken_s
    for _ in range(1000):
        total = the_total(source.read(time.monotonic() + 6.0))
        if total.taken_s > first_s + 5.0:
            break
        time.sleep(0.01)
    assert total.taken_s > first_s + 5.0
    source.close()


def test_tegrastats_that_ends_at_once_is_started_again_every_five_seconds(tmp_path: Path) -> None:
    """Not with every reading; and after a clock that was set back, too."""
    starts = tmp_path / "starts"
    boards.command(tmp_path, "tegrastats", f"echo started >> '{starts}'")
    (source,) = discover(Tree(tmp_path)).sources
    for number, now_s in enumerate((100.0, 105.0, 20.0), 1):
        for _ in range(1000):
            said = the_total(source.read(now_s))
            if source._process is None:  # type: ignore[attr-defined]
                break
            time.sleep(0.01)
        assert "tegrastats ended (exit status" in said.detail
        source.read(now_s + 4.9)
        assert source._process is None  # type: ignore[attr-defined]
        assert starts.read_text().split() == ["started"] * number


def test_tegrastats_without_a_line_end_is_not_kept_for_ever(tmp_path: Path) -> None:
    line = boards.ORIN_NANO_LINE
    script = f"head -c 3000000 /dev/zero; echo; echo '{line}'; head -c 3000000 /dev/zero"
    boards.command(tmp_path, "tegrastats", script)
    (source,) = discover(Tree(tmp_path)).sources
    largest = 0
    for _ in range(1000):
        source.read(1.0)
        largest = max(largest, len(source._pending))  # type: ignore[attr-defined]
        if source._process is None:  # type: ignore[attr-defined]
            break
        time.sleep(0.001)
    assert 0 < largest < 1_000_000


def test_sysfs_is_preferred_to_tegrastats(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path)
    boards.command(tmp_path, "tegrastats", "exit 1")
    found = discover(Tree(tmp_path))
    assert [source.name for source in found.sources] == ["ina"]
    assert "not needed" in found.missing["tegrastats"]


def test_rapl_power_is_energy_over_time(tmp_path: Path) -> None:
    boards.rapl(tmp_path, 1_000_000)
    (source,) = discover(Tree(tmp_path)).sources
    assert the_total(source.read(10.0)).condition is Condition.PENDING
    boards.rapl(tmp_path, 31_000_000)
    total = the_total(source.read(12.0))
    assert total.value == 15_000
    assert "package only" in total.covers


def test_rapl_wrap(tmp_path: Path) -> None:
    boards.rapl(tmp_path, 999_000, range_uj=1_000_000)
    (source,) = discover(Tree(tmp_path)).sources
    source.read(0.0)
    boards.rapl(tmp_path, 499_000, range_uj=1_000_000)
    assert the_total(source.read(1.0)).value == 500


def test_rapl_after_readings_that_failed_or_were_too_near(tmp_path: Path) -> None:
    """Power is of two readings in order: what came between, or of one moment, is none."""
    boards.rapl(tmp_path, 1_000_000)
    (source,) = discover(Tree(tmp_path)).sources
    assert {the_total(source.read(now_s)).condition for now_s in (10.0, 10.0, 9.0)} == {
        Condition.PENDING
    }
    boards.rapl(tmp_path, 6_000_000)
    assert the_total(source.read(10.0)).value == 5000
    boards.rapl(tmp_path, 6_000_001)
    assert the_total(source.read(10.001)).value == 5000  # mostly rounding
    boards.rapl(tmp_path, 7_000_000)
    assert the_total(source.read(8.0)).condition is Condition.PENDING  # the clock was set back
    boards.rapl(tmp_path, 9_000_000)
    assert the_total(source.read(9.0)).value == 2000
    boards.put(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "nothing")
    assert the_total(source.read(10.0)).value is None
    boards.rapl(tmp_path, 5_000_000)  # it began anew meanwhile
    assert the_total(source.read(11.0)).condition is Condition.PENDING
    boards.rapl(tmp_path, 8_000_000)
    assert the_total(source.read(12.0)).value == 3000
    boards.rapl(tmp_path, 1_000_000, range_uj=1000)
    backwards = source.read(13.0)
    assert {reading.condition for reading in backwards} == {Condition.ABSURD}


def test_rapl_parts_are_not_added_to_their_package(tmp_path: Path) -> None:
    boards.rapl(tmp_path, 0)
    core = "sys/class/powercap/intel-rapl:0:0"
    boards.put(tmp_path, f"{core}/name", "core")
    boards.put(tmp_path, f"{core}/energy_uj", 0)
    (source,) = discover(Tree(tmp_path)).sources
    source.read(0.0)
    boards.rapl(tmp_path, 5_000_000)
    boards.put(tmp_path, f"{core}/energy_uj", 3_000_000)
    readings = source.read(1.0)
    assert by_name(readings) == {"package-0": 5000, "core": 3000}
    assert the_total(readings).value == 5000


def test_raspberry_pi_5(tmp_path: Path) -> None:
    boards.command(tmp_path, "vcgencmd", f"cat <<'END'\n{boards.PI5_LINES}END")
    readings = read_all(tmp_path)
    rails = by_name(readings)
    assert set(rails) == {"3V7_WL_SW", "3V3_SYS", "VDD_CORE"}
    assert rails["VDD_CORE"] == pytest.approx(946.5799 * 0.7209762)
    total = the_total(readings)
    assert total.value == pytest.approx((1.1451 * boards.PI5_RAILS_W + 0.5879) * 1000)
    assert "USB" in total.covers


def test_a_pi_whose_pmic_lost_a_voltage_has_no_total() -> None:
    text = "\n".join(line for line in boards.PI5_LINES.splitlines() if "CORE_V" not in line)
    total = the_total(parse_pmic(text, 0.0))
    assert (total.value, total.condition) == (None, Condition.INCOMPLETE)


def test_an_older_pi_has_no_pmic(tmp_path: Path) -> None:
    boards.command(tmp_path, "vcgencmd", 'echo "error=1 error_msg=Command not registered"')
    found = discover(Tree(tmp_path))
    assert not found.sources
    assert "no PMIC" in found.missing["pmic"]


def test_a_user_who_may_not_ask_the_pmic_is_told_who_may(tmp_path: Path) -> None:
    boards.command(tmp_path, "vcgencmd", 'echo "Can\'t open device file: /dev/vcio" >&2; exit 255')
    why = discover(Tree(tmp_path)).missing["pmic"]
    assert "Can't open device file" in why and "usermod -aG video" in why


@given(st.text(max_size=200))
def test_pmic_survives_any_text(text: str) -> None:
    the_total(parse_pmic(text, 0.0))


def test_battery_by_power_and_energy(tmp_path: Path) -> None:
    boards.battery(tmp_path, power_now=7_300_000, energy_now=50_000_000, capacity=81)
    readings = read_all(tmp_path)
    assert the_total(readings).value == 7300
    assert by_name(readings, Role.BATTERY_ENERGY) == {"energy left": 180_000}
    assert by_name(readings, Role.BATTERY_CHARGE) == {"charge": 81}


def test_battery_by_voltage_current_and_charge(tmp_path: Path) -> None:
    boards.battery(tmp_path, voltage_now=7_400_000, current_now=-1_000_000, charge_now=2_000_000)
    readings = read_all(tmp_path)
    assert the_total(readings).value == 7400
    assert by_name(readings, Role.BATTERY_ENERGY)["energy left"] == pytest.approx(2 * 7.4 * 3600)


def test_a_charging_battery_does_not_tell_what_the_board_draws(tmp_path: Path) -> None:
    boards.battery(tmp_path, power_now=20_000_000, status="Charging")
    assert the_total(read_all(tmp_path)).condition is Condition.CHARGING


def two_batteries(root: Path, first: dict, second: dict) -> list[Reading]:
    for name, files in (("BAT0", first), ("BAT1", second)):
        for file, value in {"type": "Battery", **files}.items():
            boards.put(root, f"sys/class/power_supply/{name}/{file}", value)
    return read_all(root)


def test_two_batteries_are_one_supply(tmp_path: Path) -> None:
    readings = two_batteries(
        tmp_path,
        {"status": "Discharging", "power_now": 5_000_000, "energy_now": 10_000_000,
         "energy_full": 20_000_000, "capacity": 50},
        {"status": "Discharging", "power_now": 4_000_000, "energy_now": 60_000_000,
         "energy_full": 60_000_000, "capacity": 100},
    )  # fmt: skip
    assert the_total(readings).value == 9000
    assert by_name(readings, Role.BATTERY_ENERGY) == {"energy left": 70 * 3600}
    assert by_name(readings, Role.BATTERY_CHARGE) == {"charge": 87.5}


@pytest.mark.parametrize("idle", ["Not charging", "Full", "Unknown"])
def test_an_idle_first_bay_gives_nothing_and_hides_nothing(tmp_path: Path, idle: str) -> None:
    readings = two_batteries(
        tmp_path,
        {"status": idle, "power_now": 0},
        {"status": "Discharging", "power_now": 9_000_000},
    )
    assert the_total(readings).value == 9000


def test_a_battery_that_another_one_fills_leaves_the_boards_power_unknown(tmp_path: Path) -> None:
    readings = two_batteries(
        tmp_path,
        {"status": "Charging", "power_now": 5_000_000},
        {"status": "Discharging", "power_now": 9_000_000},
    )
    assert the_total(readings).condition is Condition.CHARGING


def test_an_empty_bay_is_no_battery(tmp_path: Path) -> None:
    readings = two_batteries(
        tmp_path,
        {"present": 0, "status": "Unknown"},
        {"present": 1, "status": "Discharging", "power_now": 9_000_000, "energy_now": 1_000_000},
    )
    assert the_total(readings).value == 9000
    assert by_name(readings, Role.BATTERY_ENERGY) == {"energy left": 3600}


def test_a_mouse_is_not_the_boards_battery(tmp_path: Path) -> None:
    boards.battery(tmp_path, power_now=1, scope="Device")
    assert "no battery" in discover(Tree(tmp_path)).missing["battery"]


def test_generic_hwmon(tmp_path: Path) -> None:
    boards.put(tmp_path, "sys/class/hwmon/hwmon0/name", "meter")
    boards.put(tmp_path, "sys/class/hwmon/hwmon0/power1_input", 12_345_000)
    assert the_total(read_all(tmp_path)).value == 12345


def test_several_hwmon_sensors_are_not_added_up(tmp_path: Path) -> None:
    for n in (1, 2):
        boards.put(tmp_path, f"sys/class/hwmon/hwmon0/power{n}_input", 1_000_000)
    total = the_total(read_all(tmp_path))
    assert (total.value, total.condition) == (None, Condition.UNKNOWN_RAIL)


def test_thermal_zones_with_an_offline_one_and_a_constant(tmp_path: Path) -> None:
    boards.zones(
        tmp_path, cpu_thermal=48_500, cv0_thermal=-256, cv1_thermal=-256000, PMIC_Die=100000
    )
    readings = {reading.name: reading for reading in read_all(tmp_path)}
    assert readings["cpu-thermal"].value == 48.5
    assert readings["cv0-thermal"].condition is Condition.OFFLINE
    assert readings["cv1-thermal"].condition is Condition.OFFLINE
    assert readings["PMIC-Die"].condition is Condition.STUCK


def test_clocks_are_read_before_a_command_is_waited_for(tmp_path: Path) -> None:
    """A Jetson's ``nvpmodel`` takes longer than its clocks need to fall, throttled or not."""
    clock = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
    file = boards.put(tmp_path, clock, 1_500_000)
    says = f"echo 729000 > '{file}'\necho 'NV Power Mode: 15W'"
    boards.command(tmp_path, "nvpmodel", says)
    seen = read_conditions(Tree(tmp_path))
    assert (seen.clock_mhz, seen.power_mode) == ((1500.0,), "15W")


def test_power_modes() -> None:
    assert parse_nvpmodel("NV Power Mode: MODE_15W\n1\n") == "MODE_15W"
    assert parse_nvpmodel("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0") == "MAXN"
    assert parse_nvpmodel("NVPM ERROR: power mode is not set") == "not set"
    assert parse_nvpmodel("") == "unknown"


def test_throttling_words() -> None:
    assert parse_throttled("throttled=0x0") == []
    assert parse_throttled("throttled=0x50005") == ["under-voltage", "throttled"]
    assert parse_throttled("nothing") is None


def test_conditions_of_a_board(tmp_path: Path) -> None:
    boards.command(tmp_path, "nvpmodel", 'echo "NV Power Mode: 25W"')
    boards.put(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano\0")
    cpu = "sys/devices/system/cpu/cpu0"
    boards.put(tmp_path, f"{cpu}/cpufreq/scaling_cur_freq", 1_510_400)
    boards.put(tmp_path, f"{cpu}/cpufreq/scaling_governor", "schedutil")
    boards.put(tmp_path, f"{cpu}/thermal_throttle/core_throttle_count", 3)
    seen = read_conditions(Tree(tmp_path))
    assert seen.machine == "NVIDIA Jetson Orin Nano"
    assert (seen.power_mode, seen.scaling_governor) == ("25W", "schedutil")
    assert (seen.clock_mhz, seen.throttle_count) == ((1510.4,), 3)


def test_a_machine_that_tells_nothing_says_so(tmp_path: Path) -> None:
    found = discover(Tree(tmp_path))
    assert not found.sources
    assert len(found.missing) == 7
