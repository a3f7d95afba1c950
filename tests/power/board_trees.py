"""Folders that look like boards, made from the paths and lines that the boards really show."""

from __future__ import annotations

import stat
from pathlib import Path

# tegrastats lines as the boards print them.
ORIN_NANO_LINE = (
    "06-18-2025 11:25:24 RAM 3452/7620MB (lfb 25x4MB) SWAP 1518/16384MB (cached 174MB) "
    "CPU [1%@1420,2%@1420,0%@1420,2%@1420,2%@729,1%@729] GR3D_FREQ 0% cpu@50.031C soc2@49.031C "
    "soc0@50C gpu@49.031C tj@50.25C soc1@50.25C VDD_IN 4824mW/4824mW "
    "VDD_CPU_GPU_CV 518mW/518mW VDD_SOC 1475mW/1475mW"
)
AGX_ORIN_LINE = (
    "RAM 3452/30536MB VDD_GPU_SOC 1592mW/1592mW VDD_CPU_CV -398mW/-398mW "
    "VIN_SYS_5V0 2624mW/2624mW VDDQ_VDD2_1V8AO 403mW/403mW"
)
THREE_FIGURE_LINE = (
    "GR3D_FREQ 12%@[1300,1300] cpu@52.968C/52.968C VDD_GPU_SOC 5139mW/5139mW/5139mW "
    "VDD_CPU_CV 1000mW/990mW/1200mW VIN_SYS_5V0 3000mW/3000mW/3000mW "
    "VDDQ_VDD2_1V8AO 500mW/500mW/500mW"
)
XAVIER_LINE = "GPU 1155/1155 CPU 385/385 SOC 1155/1155 CV 0/0 VDDRQ 308/308 SYS5V 2692/2692"
OLD_NANO_LINE = "RAM 1000/3964MB (lfb 1x4MB) PLL@30C CPU@33.5C POM_5V_IN 933/933"

PI5_LINES = """\
     3V7_WL_SW_A current(0)=0.09564720A
       3V3_SYS_A current(1)=0.06148749A
     VDD_CORE_A current(7)=0.94657990A
     3V7_WL_SW_V volt(8)=3.70412600V
       3V3_SYS_V volt(9)=3.30921900V
     VDD_CORE_V volt(15)=0.72097620V
          EXT5V_V volt(24)=5.11478000V
           BATT_V volt(25)=0.00000000V
"""
PI5_RAILS_W = 0.09564720 * 3.70412600 + 0.06148749 * 3.30921900 + 0.94657990 * 0.72097620

I2C = "sys/bus/i2c/drivers"


def put(root: Path, path: str, text: str | float) -> Path:
    """One file of the board."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")
    return file


def command(root: Path, name: str, script: str) -> Path:
    """One executable of the board, as a shell script."""
    file = put(root, f"usr/bin/{name}", f"#!/bin/sh\n{script}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def ina3221(
    root: Path,
    rails: dict[int, tuple[str, float, float]],
    address: str = "1-0040",
    hwmon: str = "hwmon1",
) -> Path:
    """A JetPack 5 monitor: channel -> (label, mV, mA)."""
    folder = f"{I2C}/ina3221/{address}/hwmon/{hwmon}"
    for n, (label, millivolt, milliampere) in rails.items():
        put(root, f"{folder}/in{n}_label", label)
        put(root, f"{folder}/in{n}_input", millivolt)
        put(root, f"{folder}/curr{n}_input", milliampere)
    put(root, f"{folder}/in7_label", "sum of shunt voltages")
    put(root, f"{folder}/in7_input", 3)
    put(root, f"{folder}/name", "ina3221")
    return root / folder


def orin_nano(root: Path) -> Path:
    """The Orin Nano of the sample line: 4824, 518 and 1475 mW."""
    return ina3221(
        root,
        {
            1: ("VDD_IN", 4824, 1000),
            2: ("VDD_CPU_GPU_CV", 5000, 103.6),
            3: ("VDD_SOC", 5000, 295),
        },
    )


def agx_orin(root: Path, cpu_ma: float = 200) -> None:
    """Two monitors, no total; a channel that is not connected."""
    ina3221(
        root,
        {
            1: ("VDD_GPU_SOC", 8000, 199),
            2: ("VDD_CPU_CV", 5000, cpu_ma),
            3: ("VIN_SYS_5V0", 5000, 525),
        },
    )
    ina3221(
        root,
        {1: ("NC", 0, 0), 2: ("VDDQ_VDD2_1V8AO", 4000, 100), 3: ("NC", 0, 0)},
        address="1-0041",
        hwmon="hwmon2",
    )


def xavier_jetpack4(root: Path) -> None:
    """The iio layout, whose channels count from 0."""
    labels = ("GPU", "CPU", "SOC"), ("CV", "VDDRQ", "SYS5V")
    for chip, (address, names) in enumerate(zip(("1-0040", "1-0041"), labels, strict=True)):
        folder = f"{I2C}/ina3221x/{address}/iio:device{chip}"
        for n, name in enumerate(names):
            put(root, f"{folder}/rail_name_{n}", name)
            put(root, f"{folder}/in_voltage{n}_input", 5000)
            put(root, f"{folder}/in_current{n}_input", 100 * (n + 1))
            put(root, f"{folder}/in_power{n}_input", 500 * (n + 1))


def thor(root: Path) -> None:
    """INA3221 for the parts, INA238 for the whole."""
    ina3221(
        root,
        {
            1: ("VDD_GPU", 10000, 1000),
            2: ("VDD_CPU_SOC_MSS", 10000, 700),
            3: ("VIN_SYS_5V0", 5000, 800),
        },
    )
    folder = f"{I2C}/ina238/2-0044/hwmon/hwmon5"
    put(root, f"{folder}/name", "ina238")
    put(root, f"{folder}/in1_label", "VIN")
    put(root, f"{folder}/power1_input", 31_500_000)


def rapl(root: Path, energy_uj: float, range_uj: float = 262_143_328_850) -> None:
    """One package."""
    zone = "sys/class/powercap/intel-rapl:0"
    put(root, f"{zone}/name", "package-0")
    put(root, f"{zone}/energy_uj", energy_uj)
    put(root, f"{zone}/max_energy_range_uj", range_uj)


def battery(root: Path, **files: str | float) -> None:
    """A battery with the files that are named."""
    for name, value in {"type": "Battery", "status": "Discharging", **files}.items():
        put(root, f"sys/class/power_supply/BAT0/{name}", value)


def zones(root: Path, **milli_degrees: str | float) -> None:
    """Thermal zones by type."""
    for n, (kind, value) in enumerate(milli_degrees.items()):
        folder = f"sys/devices/virtual/thermal/thermal_zone{n}"
        put(root, f"{folder}/type", kind.replace("_", "-"))
        put(root, f"{folder}/temp", value)


def answers_eio(file: Path) -> None:
    """Makes a file whose reading fails with EIO, as a bus error does: address 0 of this process."""
    file.unlink(missing_ok=True)
    file.symlink_to("/proc/self/mem")
