"""`tatvpr-edge power`: what was found, live, as a table or as JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import board_trees as boards
import pytest

from support.board import quick_options, running_sshd
from tatvpr_edge.cli import main, power
from tatvpr_edge.cli.power import sparkline
from tatvpr_edge.deploy.push import deploy


def test_a_board_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boards.orin_nano(tmp_path)
    boards.zones(tmp_path, tj_thermal=50_250, cv0_thermal=-256)
    assert main(["power", "--root", str(tmp_path), "--duration", "0.05"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "VDD_CPU_GPU_CV  0.518 W",
        "50.2 C",
        "offline: the zone is powered down",
        "total: 4.824 W by ina (whole module)",
        "not used: rapl: no RAPL counter",
    ):
        assert words in shown


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boards.agx_orin(tmp_path, cpu_ma=-79.6)
    assert main(["power", "--root", str(tmp_path), "--duration", "0", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["total"]["condition"] == "incomplete"
    assert document["total"]["value"] is None
    by_name = {reading["name"]: reading for reading in document["readings"]}
    assert by_name["VDD_CPU_CV"]["condition"] == "negative"
    assert by_name["VIN_SYS_5V0"]["value"] == 2625
    assert by_name["VIN_SYS_5V0"]["age_s"] >= 0
    assert "ina" in document["sources"]
    assert document["missing"]["battery"].startswith("no battery")


def test_an_energy_counter_is_given_time_for_its_second_reading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boards.rapl(tmp_path, 5_000_000)
    assert main(["power", "--root", str(tmp_path), "--duration", "0.3", "--json"]) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert (total["condition"], total["value"]) == ("absurd", None)  # it stands still


def test_a_machine_that_tells_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", "--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: this machine tells neither power nor temperature: ")
    assert error.count("\n") == 1
    assert main(["power", "--root", str(tmp_path), "--duration", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["condition"] == "absent"


def test_on_a_terminal_it_is_live(tmp_path: Path) -> None:
    """A pseudo-terminal: the display is drawn, redrawn and ends by itself."""
    boards.orin_nano(tmp_path)
    master, slave = pty.openpty()
    words = ["power", "--root", str(tmp_path), "--duration", "0.6", "--interval", "0.05"]
    program = "import sys; from tatvpr_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:  # the other end closed: how a pseudo-terminal says end of file
        pass
    finally:
        os.close(master)
    assert process.wait(30) == 0
    text = shown.decode()
    assert text.count("VDD_IN") > 2
    assert "█" in text  # the sparkline of a constant power is at its top
    assert "Ctrl-C ends" in text


def test_sparklines() -> None:
    assert sparkline([]) == ""
    assert sparkline([None, None]) == ""
    assert sparkline([0.0, 4.0, None, 8.0]) == "▁▄ █"
    assert len(sparkline([1.0] * 500)) == 48


def test_another_board_s_sensors_are_read_over_ssh(
    tiny_host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boards.orin_nano(tmp_path / "board")
    root = tmp_path / "root"
    with running_sshd(tmp_path / "etc") as sshd:
        options = quick_options(root, runtime="always")
        deploy(sshd.transport(), tiny_host, None, options)
        words = ["power", "--on", "127.0.0.1", "--port", str(sshd.port), "--duration", "0.05"]
        words += ["--ssh-config", str(sshd.config), "--python", shlex.quote(sys.executable)]
        words += ["--root", str(tmp_path / "board"), "--install-root", str(root)]
        assert main(words) == 0
        assert "total: 4.824 W by ina (whole module)" in capsys.readouterr().out
        assert main([*words, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["total"]["value"] == pytest.approx(4824) and document["readings"]


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("exec sleep 600", "took more than 1 s"),
        ("exec head -c 99000000 /dev/zero", "answers without end"),
        ("echo Welcome; echo '[]'", "cannot be read"),
        ("echo usage >&2; exit 2", "does not know 'power' .*: deploy again"),
        ("echo 'error: no sensors here' >&2; exit 1", r": no sensors here$"),
        ("echo 'no \\033[2Jtatvpr_edge' >&2; exit 1", r"exit status 1: no \\x1b\[2Jtatvpr_edge"),
    ],
)
def test_a_board_that_answers_nonsense_or_never_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    told: str,
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{says}\n")
    fake.chmod(0o755)
    if "sleep" in says:  # a busy machine may need longer for the others
        monkeypatch.setattr(power, "PATIENCE_S", 1.0)
    words = ["power", "--on", "local:", "--python", str(fake), "--install-root", str(tmp_path)]
    assert main([*words, "--duration", "0", "--json"]) == 1
    error = capsys.readouterr().err
    assert re.search(told, error) and len(error.splitlines()) == 1 and "\x1b" not in error
