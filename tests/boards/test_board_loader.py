"""A board file with a fault is refused with one line that names the file, the key and a remedy."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatvpr_edge.boards import loader
from tatvpr_edge.boards.board import MEMORY_KINDS, Board
from tatvpr_edge.spec.errors import BoardError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BOARDS = Path(loader.__file__).parent


def raw(name: str) -> dict[str, Any]:
    return tomllib.loads((BOARDS / f"{name}.toml").read_text())


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(BoardError) as caught:
        loader.parse("mine", values, "mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml: ")
    assert "\n" not in message
    return message


def changed(name: str, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    values = raw(name)
    change(values)
    return values


@pytest.mark.parametrize("wrong", [None, 5, b"host", ["host"]])
def test_what_is_no_name_at_all_is_told_so(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"board is .*: a board's name"):
        loader.load(wrong)


def test_a_boards_file_may_be_a_path() -> None:
    assert loader.load(BOARDS / "host.toml") == loader.load("host")


@pytest.mark.parametrize("title", ["\u202eevil", "one\u2028two", "a\x9bb"])
def test_a_title_that_a_terminal_would_obey_is_refused(title: str) -> None:
    said = refused(changed("host", lambda values: values.update(title=title)))
    assert said.isprintable() and "write one line" in said
    said = refused(changed("host", lambda values: values.update({title: 1})))
    assert said.isprintable()


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("jetson-orin-nan", "jetson-orin-nano"),
        ("raspberrypi5", "raspberry-pi-5"),
        ("STM32H7", "did you mean stm32h7?"),
        ("../boards/host", "unknown board"),
        ("", "known are host, esp32-p4"),
    ],
)
def test_an_unknown_board_is_answered_with_near_matches(wrong: str, near: str) -> None:
    with pytest.raises(BoardError, match="unknown board") as caught:
        loader.load(wrong)
    assert near in str(caught.value)


FAULTS: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("stm32h7", lambda v: v.pop("cpu"), "cpu: missing: add it as a table"),
    ("stm32h7", lambda v: v["cpu"].pop("triple"), "cpu.triple: missing"),
    ("stm32h7", lambda v: v["cpu"].update(cores="one"), "cpu.cores: a string where an integer"),
    ("stm32h7", lambda v: v["cpu"].update(cores=True), "cpu.cores: true or false where"),
    ("stm32h7", lambda v: v["cpu"].update(cores=0), "cpu.cores: 0 is out of range: write 1 to"),
    (
        "stm32h7",
        lambda v: v["cpu"].update(clock=480),
        "cpu.clock: unknown key: did you mean clock_",
    ),
    ("stm32h7", lambda v: v["cpu"].update(features=["+dsp"]), "cpu.features[0]: '+dsp'"),
    ("stm32h7", lambda v: v["cpu"].update(features=["dps"]), "'dps': did you mean dsp?"),
    ("stm32n6", lambda v: v["cpu"].update(features=["helium"]), "'helium': known are"),
    ("stm32h7", lambda v: v["cpu"].update(features=["dsp", "dsp"]), "stands there twice"),
    ("stm32h7", lambda v: v["cpu"].update(features=["dsp", 7]), "features[1]: an integer where"),
    ("stm32h7", lambda v: v["cpu"].update(triple="arm"), "a triple such as"),
    ("stm32h7", lambda v: v.update(kind="mcu"), "kind: unknown value 'mcu': known are linux"),
    ("stm32h7", lambda v: v.update(colour="red"), "colour: unknown key"),
    ("stm32h7", lambda v: v.update(gpu={"name": "x"}), "gpu: unknown key"),
    ("stm32h7", lambda v: v.update(glibc="2.35"), "glibc: unknown key"),
    ("stm32h7", lambda v: v.update(title="a\nb"), "title: 'a\\nb' is not valid: write one line"),
    ("stm32h7", lambda v: v.pop("placement"), "placement: missing"),
    ("stm32h7", lambda v: v["placement"].update(arena="axo"), "did you mean axi?"),
    ("stm32h7", lambda v: v["placement"].update(arena="flash"), "placement.arena: unknown value"),
    ("stm32h7", lambda v: v["memory"][3].update(kind="rum"), "memory[3].kind: unknown value 'rum'"),
    ("stm32h7", lambda v: v["memory"][3].update(size=0), "memory[3].size: 0 is out of range"),
    ("stm32h7", lambda v: v["memory"][3].update(base=-1), "memory[3].base: -1 is out of range"),
    ("stm32h7", lambda v: v["memory"][3].update(size=2**32), "beyond the address space"),
    ("stm32h7", lambda v: v["memory"][3].update(name="flash"), "two regions are called 'flash'"),
    ("stm32h7", lambda v: v["memory"][3].update(base=0x2001FFFF), "axi (0x2001ffff to 0x2009fffe)"),
    ("stm32h7", lambda v: v.update(memory=["axi"]), "memory[0]: a string where a table belongs"),
    ("stm32h7", lambda v: v.update(memory={}), "memory: a table where a list belongs"),
    ("stm32h7", lambda v: v.update(limits_of="stm32h8"), "limits_of: unknown value"),
    ("stm32h7", lambda v: v["toolchain"].update(gcc="gcc; rm"), "toolchain.gcc: 'gcc; rm'"),
    ("stm32h7", lambda v: v["toolchain"].update(gcc_flags=["-a b"]), "without spaces or quotes"),
    ("stm32h7", lambda v: v["verification"].update(level="yes"), "known are compiled, emulated"),
    ("jetson-thor", lambda v: v.pop("glibc"), "glibc: missing"),
    ("jetson-thor", lambda v: v["cpu"].update(features=["neon"]), "cpu.features: unknown key"),
    ("jetson-thor", lambda v: v.update(glibc=2.39), "glibc: a number where a string belongs"),
    ("jetson-thor", lambda v: v.update(install_root="/opt"), "install_root: unknown key"),
    ("jetson-thor", lambda v: v.update(placement={}), "placement: unknown key"),
    ("jetson-thor", lambda v: v["gpu"].update(sm=11.0), "gpu.sm: a number where an integer"),
    ("jetson-thor", lambda v: v["gpu"].update(tensorrt="ten"), "a version such as 10.3"),
    ("jetson-thor", lambda v: v.update(emulator={"program": "qemu"}), "emulator.package: missing"),
]


@pytest.mark.parametrize(
    ("board", "change", "says"), FAULTS, ids=[f"{f[0]}-{f[2][:40]}" for f in FAULTS]
)
def test_a_fault_is_named(
    board: str, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    assert says in refused(changed(board, change))


def test_a_board_cannot_hold_its_own_limits() -> None:
    with pytest.raises(BoardError, match="names the board itself"):
        loader.parse("stm32h7", {**raw("stm32h7"), "limits_of": "stm32h7"}, "stm32h7.toml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"kind = ", "is not valid TOML"),
        (b"title = '\xff'", "byte 9 is not UTF-8"),
        (b"", "kind: missing"),
        (b"a = " + b"[" * 5000, "is not valid TOML"),
    ],
)
def test_a_file_that_is_no_board_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(BoardError, match=r"^mine\.toml") as caught:
        loader.read(path)
    assert says in str(caught.value)


def test_a_missing_file_and_a_bad_file_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="No such file"):
        loader.read(tmp_path / "mine.toml")
    with pytest.raises(BoardError, match=r"NAME\.toml"):
        loader.read(tmp_path / "My Board.toml")


@pytest.mark.parametrize("name", ["mine", "jetson-orin-nano"])
def test_a_link_to_itself_is_refused(tmp_path: Path, name: str) -> None:
    """Before Python 3.13 one called as a shipped board was a fault of ours."""
    (path := tmp_path / f"{name}.toml").symlink_to(path)
    with pytest.raises(BoardError, match=f"{name}.toml: "):
        loader.load(str(path))


def test_a_users_own_file_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "my-board.toml"
    path.write_bytes((BOARDS / "raspberry-pi-5.toml").read_bytes())
    board = loader.read(path)
    assert board.name == "my-board"
    assert board.cpu == loader.load("raspberry-pi-5").cpu


REGION = st.fixed_dictionaries(
    {
        "base": st.integers(0, 2**20),
        "size": st.integers(1, 2**16),
        "kind": st.sampled_from(MEMORY_KINDS),
    }
)


@given(st.lists(REGION, min_size=1, max_size=6))
def test_regions_are_accepted_exactly_when_no_byte_has_two_names(
    regions: list[dict[str, Any]],
) -> None:
    values = raw("raspberry-pi-5")
    values["memory"] = [{"name": f"r{i}", **region} for i, region in enumerate(regions)]
    spans = sorted((region["base"], region["base"] + region["size"]) for region in regions)
    disjoint = all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    if disjoint:
        board = loader.parse("mine", values, "mine.toml")
        assert [(r.base, r.end) for r in board.memory] == [
            (r["base"], r["base"] + r["size"]) for r in regions
        ]
    else:
        assert "overlaps" in refused(values)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key and index of nested tables and lists."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    found = [(*path, key) for key, _ in items]
    for key, inner in items:
        if isinstance(inner, dict | list):
            found += paths_of(inner, (*path, key))
    return found


@given(st.sampled_from(loader.names()), st.data())
def test_any_value_anywhere_gives_a_board_or_one_line(name: str, data: st.DataObject) -> None:
    values = copy.deepcopy(raw(name))
    path = data.draw(st.sampled_from(paths_of(values)))
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = data.draw(JUNK)
    try:
        board = loader.parse(name, values, f"{name}.toml")
    except BoardError as error:
        assert str(error).startswith(f"{name}.toml: ")
        assert "\n" not in str(error)
    else:
        assert isinstance(board, Board)
        hash(board)


@given(st.sampled_from(loader.names()), st.data())
def test_a_key_too_many_is_never_ignored(name: str, data: st.DataObject) -> None:
    values = copy.deepcopy(raw(name))
    tables = [p for p in paths_of(values) if isinstance(_at(values, p), dict)] + [()]
    place = _at(values, data.draw(st.sampled_from(tables)))
    place["surplus"] = 1
    with pytest.raises(BoardError, match="surplus: unknown key"):
        loader.parse(name, values, f"{name}.toml")


def _at(values: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def test_a_users_own_file_is_a_board_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (BOARDS / "stm32h7.toml").read_text()
    (tmp_path / "my-board.toml").write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(tmp_path / "my-board.toml"), "~/my-board.toml"):
        assert loader.load(name).name == "my-board"
    assert loader.load(str(BOARDS / "stm32h7.toml")).name == "stm32h7"
    with pytest.raises(BoardError, match="cannot be read"):
        loader.load("./no-such.toml")
    (tmp_path / "stm32h7.toml").write_text(text)
    with pytest.raises(BoardError, match=r"shipped board is called 'stm32h7'.*rename"):
        loader.load(str(tmp_path / "stm32h7.toml"))
