"""Objects kept between builds: found again by everything that the compiler read, and only whole."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from support.tools import require_tool
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.objects import Compiler, compile_object, made_anew
from tatvpr_edge.compilers.toolchains import find_compiler


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    require_tool("gcc", "gcc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tatvpr-edge" / "objects"


@pytest.fixture
def counting(home: Path, tmp_path: Path) -> tuple[Compiler, Path]:
    """The host's compiler behind a script that writes a line for every file that it compiles."""
    real = find_compiler(load("host")).command[0]
    log = tmp_path / "log"
    log.write_text("")
    script = tmp_path / "cc"
    script.write_text(f'#!/bin/sh\necho one >> "{log}"\nexec "{real}" "$@"\n')
    script.chmod(0o755)
    return Compiler((str(script),), "1.0"), log


def answer(made: Path, folder: Path) -> int:
    """What f() of an object returns."""
    main = folder / "main.c"
    main.write_text("int f(void);\nint main(void) { return f(); }\n")
    program = folder / "program"
    subprocess.run(["gcc", str(main), str(made), "-o", str(program)], check=True)
    return subprocess.run([str(program)]).returncode


def test_the_same_text_is_compiled_once(counting: tuple[Compiler, Path], tmp_path: Path) -> None:
    compiler, log = counting
    for folder, text, flags, times in (
        ("a", "int f(void) { return 7; }", [], 1),
        ("a", "int f(void) { return 7; }", [], 1),
        ("b", "int f(void) { return 7; }", [], 1),
        ("a", "int f(void) { return 7; }", ["-O2"], 2),
        ("a", "int f(void) { return 8; }", [], 3),
    ):
        source = tmp_path / folder / "f.c"
        source.parent.mkdir(exist_ok=True)
        source.write_text(text)
        made = compile_object(compiler, source, flags, tmp_path / "f.o")
        assert len(log.read_text().split()) == times
        assert answer(made, tmp_path) == (8 if "8" in text else 7)


def test_another_compiler_and_another_boards_flags_compile_anew(
    counting: tuple[Compiler, Path], tmp_path: Path
) -> None:
    compiler, log = counting
    updated = replace(compiler, version="1.1")  # in its place
    board = replace(compiler, command=(*compiler.command, "-DBOARD=1"))
    (tmp_path / "f.c").write_text("int f(void) { return 7; }")
    for one, times in ((compiler, 1), (updated, 2), (board, 3), (updated, 3), (compiler, 3)):
        compile_object(one, tmp_path / "f.c", [], tmp_path / "f.o")
        assert len(log.read_text().split()) == times


def test_weights_that_an_assembler_takes_in_are_never_those_of_before(
    home: Path, tmp_path: Path
) -> None:
    """No compiler names what .incbin reads: the text is the same for another model."""
    compiler, weights = find_compiler(load("host")), tmp_path / "weights.bin"
    source = tmp_path / "weights.S"
    source.write_text(f'.section .rodata\n.incbin "{weights}"\n')
    for content in (b"first model", b"other model"):
        weights.write_bytes(content)
        made = compile_object(compiler, source, [], tmp_path / "weights.o")
        assert content in made.read_bytes()


@pytest.mark.parametrize("included", ["part.c", "part.h", "deeper/part.inc"])
def test_an_edit_of_any_included_file_is_seen(home: Path, tmp_path: Path, included: str) -> None:
    compiler = find_compiler(load("host"))
    source = tmp_path / "f.c"
    source.write_text(f'#define PART "{included}"\n#include PART\n')
    part = tmp_path / included
    part.parent.mkdir(exist_ok=True)
    for value in (3, 4, 3):
        part.write_text(f"int f(void) {{ return {value}; }}\n")
        made = compile_object(compiler, source, [], tmp_path / "f.o")
        assert answer(made, tmp_path) == value


@pytest.mark.parametrize("folder", ["c#", "two words", "a: b", "caf\u00e9$"])
def test_a_folder_of_any_name_hides_no_edit(home: Path, tmp_path: Path, folder: str) -> None:
    """Of a header below "c#" no edit was seen: make's way to write the name was not understood."""
    compiler = find_compiler(load("host"))
    source, header = tmp_path / "f.c", tmp_path / folder / "part.h"
    source.write_text("#include <part.h>\n")
    header.parent.mkdir()
    for value in (3, 4, 3):
        header.write_text(f"int f(void) {{ return {value}; }}\n")
        made = compile_object(compiler, source, [f"-I{header.parent}"], tmp_path / "f.o")
        assert answer(made, tmp_path) == value
    assert len(list(home.glob("*.object"))) == 2


def test_what_is_edited_while_it_is_compiled_is_compiled_again(home: Path, tmp_path: Path) -> None:
    """The object of the old text was kept under the new one's name, for every build to come."""
    real, script, part = find_compiler(load("host")).command[0], tmp_path / "cc", tmp_path / "p.h"
    part.write_text("int f(void) { return 3; }\n")
    (tmp_path / "f.c").write_text('#include "p.h"\n')
    edit = f'echo "int f(void) {{ return 4; }}" > "{part}"'
    script.write_text(f'#!/bin/sh\n"{real}" "$@" && {edit}\n')
    script.chmod(0o755)
    for value in (3, 4):
        made = compile_object(Compiler((str(script),), "1"), tmp_path / "f.c", [], tmp_path / "f.o")
        assert answer(made, tmp_path) == value


@pytest.mark.parametrize("damage", ["empty", "cut", "altered", "no object at all"])
def test_a_damaged_object_is_made_again(home: Path, tmp_path: Path, damage: str) -> None:
    compiler = find_compiler(load("host"))
    source = tmp_path / "f.c"
    source.write_text("int f(void) { return 5; }\n")
    compile_object(compiler, source, [], tmp_path / "f.o")
    (kept,) = home.glob("*.object")
    whole = kept.read_bytes()
    place = whole.rindex(b"GCC") if damage == "altered" and b"GCC" in whole else len(whole) // 2
    kept.write_bytes(
        {
            "empty": b"",
            "cut": whole[:-7],
            "altered": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
            "no object at all": b"hello",
        }[damage]
    )
    made = compile_object(compiler, source, [], tmp_path / "g.o")
    assert answer(made, tmp_path) == 5
    assert kept.read_bytes() == whole


def test_names_that_are_no_names_are_not_believed(home: Path, tmp_path: Path) -> None:
    compiler = find_compiler(load("host"))
    source = tmp_path / "f.c"
    source.write_text("int f(void) { return 5; }\n")
    for text in ("", "{}", "[1]", "[", "\x00", '["a\\u0000b"]'):
        compile_object(compiler, source, [], tmp_path / "f.o")
        (names,) = home.glob("*.json")
        names.write_text(text)
        assert answer(compile_object(compiler, source, [], tmp_path / "f.o"), tmp_path) == 5


def test_what_will_be_signed_comes_from_no_cache(home: Path, tmp_path: Path) -> None:
    """An object that somebody planted, with a right hash before it, is not linked."""
    source = tmp_path / "f.c"
    planted = tmp_path / "planted.c"
    planted.write_text("int f(void) { return 66; }\n")
    source.write_text("int f(void) { return 5; }\n")
    compiler = find_compiler(load("host"))
    compile_object(compiler, source, [], tmp_path / "f.o")
    (kept,) = home.glob("*.object")
    evil = compile_object(compiler, planted, ["-O1"], tmp_path / "evil.o").read_bytes()
    kept.write_bytes(hashlib.sha256(evil).digest() + evil)
    assert answer(compile_object(compiler, source, [], tmp_path / "f.o"), tmp_path) == 66
    with made_anew():
        compiler = find_compiler(load("host"))
    assert answer(compile_object(compiler, source, [], tmp_path / "f.o"), tmp_path) == 5


def test_what_will_be_signed_comes_from_no_cache_of_a_compiler(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zig keeps objects by itself, and so does a gcc that is a link to ccache."""
    log, compiler, source = tmp_path / "log", tmp_path / "bin" / "gcc", tmp_path / "f.c"
    source.write_text("int f(void) { return 5; }\n")
    compiler.parent.mkdir()
    caches = "$CCACHE_DISABLE|$ZIG_GLOBAL_CACHE_DIR|$ZIG_LOCAL_CACHE_DIR"
    real = find_compiler(load("host")).command[0]
    compiler.write_text(f'#!/bin/sh\necho "{caches}|$*" >> "{log}"\nexec "{real}" "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ZIG_LOCAL_CACHE_DIR", "/the/users")
    folders = []
    for _ in range(2):
        with made_anew():
            found = find_compiler(load("host"))
            log.write_text("")
            made = compile_object(found, source, [], tmp_path / "f.o")
            found.run(["-shared", "-o", str(tmp_path / "f.so"), str(made)], "linking")
            compiled, linked = (line.split("|") for line in log.read_text().splitlines())
            assert compiled[:3] == linked[:3] and "-shared" in linked[3]
            off, one, other = linked[:3]
            assert off == "1" and one == other and os.path.isdir(one)
            folders.append(one)
    assert len(set(folders)) == 2 and not any(map(os.path.exists, folders))
    log.write_text("")
    compile_object(find_compiler(load("host")), source, [], tmp_path / "f.o")
    assert log.read_text().startswith("||/the/users|")


def test_a_home_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_tool("gcc", "gcc")
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    source = tmp_path / "f.c"
    source.write_text("int f(void) { return 5; }\n")
    made = compile_object(find_compiler(load("host")), source, [], tmp_path / "f.o")
    assert answer(made, tmp_path) == 5


def test_what_no_build_used_for_a_season_goes(
    home: Path, counting: tuple[Compiler, Path], tmp_path: Path
) -> None:
    """Every text that a source ever had stayed."""
    compiler, log = counting
    home.mkdir(parents=True)
    months_ago = time.time() - 100 * 86400
    for name in ("old.object", "old.json", "new.object"):
        (home / name).write_bytes(b"kept")
        if name.startswith("old"):
            os.utime(home / name, (months_ago, months_ago))
    source = tmp_path / "f.c"
    source.write_text("int f(void) { return 7; }")
    compile_object(compiler, source, [], tmp_path / "f.o")
    kept = {path.name for path in home.iterdir()}
    assert "new.object" in kept and not kept & {"old.object", "old.json"} and len(kept) == 3
    for path in home.iterdir():
        os.utime(path, (months_ago, months_ago))
    compile_object(compiler, source, [], tmp_path / "f.o")
    assert log.read_text() == "one\n"
    used = {path.name for path in home.iterdir() if path.stat().st_mtime > months_ago + 1}
    assert used == kept - {"new.object"}, "what is used again stays"
