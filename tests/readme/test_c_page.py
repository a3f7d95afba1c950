"""docs/c-api.md and the public C headers name the same functions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
