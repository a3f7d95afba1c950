"""docs/c-api.md and the public C headers name the same functions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.tools import require_tool
from tatvpr_edge.compilers.core_sources import core_folder

HEADERS = (
    "include/tatvpr.h",
    "include/tatvpr_track.h",
    "governor/tatvpr_governor.h",
    "firmware/tatvpr_selftest.h",
)


@pytest.fixture
def page(project_root: Path) -> str:
    return (project_root / "docs" / "c-api.md").read_text()


def declared(header: str) -> set[str]:
    """Functions that a header declares."""
    text = re.sub(r"/\*.*?\*/", "", (core_folder() / header).read_text(), flags=re.DOTALL)
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    # a declaration ends with ");"; a pointer to a function has its name in parentheses
    return set(re.findall(r"\b(tatvpr_\w+)\([^()]*\);", text))


@pytest.mark.parametrize("header", HEADERS)
def test_every_public_function_has_a_row(page: str, header: str) -> None:
    functions = declared(header)
    assert functions
    rows = "\n".join(line for line in page.splitlines() if line.startswith("| `"))
    assert functions - set(re.findall(r"`(tatvpr_\w+)`", rows)) == set()


def test_every_function_on_the_page_exists(page: str) -> None:
    known = set().union(*(declared(header) for header in HEADERS))
    named = set(re.findall(r"\b(tatvpr_\w+)\(", page))
    rows = [line for line in page.splitlines() if line.startswith("| `tatvpr")]
    named |= {name for line in rows for name in re.findall(r"`(tatvpr_\w+)`", line)}
    assert named - known == set()


def test_declarations_are_all_found() -> None:
    """The reader above misses no function of the longest header."""
    text = (core_folder() / "include/tatvpr.h").read_text()
    assert len(declared("include/tatvpr.h")) == len(re.findall(r"^TATVPR_API ", text, re.MULTILINE))


def test_the_pages_program_compiles_as_it_stands(page: str, tmp_path: Path) -> None:
    """Around it stands what its first words say that a program has: files and memory."""
    compiler = require_tool("cc", "gcc")
    (body,) = re.findall(r"^```c\n(.*?)^```$", page, re.M | re.S)
    given = (
        "const void *weights, size_t bytes, void *prepared, void *memory, const void *map_file, "
        "size_t map_bytes, const uint8_t *y, const uint8_t *uv"
    )
    program = tmp_path / "page.c"
    program.write_text(
        f'#include "tatvpr.h"\nint run({given});\nint run({given}) {{\n{body}return found;\n}}\n'
    )
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{core_folder() / 'include'}"]
    subprocess.run([compiler, *strict, "-c", program, "-o", tmp_path / "page.o"], check=True)
