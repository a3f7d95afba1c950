"""A message that names a command names one that a shell takes, and that is there to be run."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.artifacts import scenes
from tatvpr_edge.cli import main
from tatvpr_edge.runtime import Localizer, MapWriter
from tatvpr_edge.runtime.streams import stream
from tatvpr_edge.spec.errors import DataError

Said = Callable[[], str]


@pytest.fixture
def map_path(scene_map: Path, tmp_path: Path) -> Path:
    """A map that is not calibrated, in a folder whose name a shell would take apart."""
    (tmp_path / "it's floor 2").mkdir()
    return Path(shutil.copy(scene_map, tmp_path / "it's floor 2" / "my map.placemap"))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    """The one line that was logged."""

    def line() -> str:
        (text,) = [record.getMessage() for record in caplog.records]
        return text

    caplog.set_level(logging.WARNING, "tatvpr_edge")
    return line


def named(text: str) -> list[str]:
    """The words of the command in a message, as a shell reads them."""
    (command,) = re.findall(r"`(tatvpr-edge .*)`", text)
    return shlex.split(command)


@pytest.mark.parametrize(
    ("sequence", "more"), [(1, []), (5, ["DRIVE", "--sequence", "5"])], ids=["frame", "sequence"]
)
def test_a_query_names_a_command_that_a_shell_takes(
    tiny_host: Path, map_path: Path, sequence: int, more: list[str], said: Said
) -> None:
    with Localizer(tiny_host, map_path, sequence=sequence) as localizer:
        localizer.query(scenes(1)[0])
    assert named(said()) == ["tatvpr-edge", "map", "calibrate", str(map_path), *more]
    assert sequence == 1 or "for sequences of 5 frames, so that accepted is None" in said()


def test_a_map_made_like_another_names_a_command_that_a_shell_takes(
    tiny_host: Path, map_path: Path, tmp_path: Path, said: Said
) -> None:
    MapWriter(tmp_path / "new.placemap", tiny_host, like=map_path).close()
    assert named(said()) == ["tatvpr-edge", "map", "calibrate", str(map_path)]


def test_a_map_of_a_release_is_calibrated_where_it_was_made(
    tiny_host: Path, map_path: Path, tmp_path: Path, said: Said
) -> None:
    release = tmp_path / "root" / "releases" / "micro-host"
    release.mkdir(parents=True)
    (release / "release.json").write_text("{}")
    shutil.copy(map_path, release / "map.placemap")
    (tmp_path / "root" / "current").symlink_to("releases/micro-host")
    with Localizer(tiny_host, tmp_path / "root" / "current" / "map.placemap") as localizer:
        localizer.query(scenes(1)[0])
    assert named(said()) == ["tatvpr-edge", "map", "calibrate", "MAP"]
    assert said().endswith("on the host that has it, and deploy it again")


def test_a_recording_that_is_no_stream_names_a_command_that_a_shell_takes(tmp_path: Path) -> None:
    bag = tmp_path / "second drive.mcap"
    bag.write_bytes(b"\x89MCAP0\r\n")
    with pytest.raises(DataError, match="is a recording") as caught:
        stream(str(bag))
    assert named(str(caught.value)) == ["tatvpr-edge", "query", str(bag)]


def test_a_new_key_names_commands_that_a_shell_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "my settings"))
    assert main(["keys", "new", "release", "--no-passphrase"]) == 0
    told = capsys.readouterr()
    key = told.out.strip()
    sign, trust = (shlex.split(line.partition(":")[2]) for line in told.err.splitlines())
    assert key in sign and f"{key}.pub" in trust
