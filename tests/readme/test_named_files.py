"""Whoever reads a page can look at what it names: tests, tools and targets of make are there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A changelog names what is gone, too.
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")} - {ROOT / "CHANGELOG.md"})
_CODE = re.compile(r"`([^`\n]+)`")
#: ``test_file.py``, with or without its folder, ``::test_name``, or both.
_TEST = re.compile(r"(?P<file>[\w/]*\btest_\w+\.py)?(?:::)?(?P<test>\btest_\w+)?")
_TOOL = re.compile(r"\b(?:tools|tests|fuzz)/[\w/]+\.\w+")
_TARGET = re.compile(r"\bmake ([a-z]+)")


@cache
def names_in(file: Path) -> frozenset[str]:
    return frozenset(re.findall(r"^ *def (test_\w+)\(", file.read_text(), re.MULTILINE))


def missing_tests(text: str) -> list[str]:
    """What a page names and no file of tests holds; a test is looked for in the file named last."""
    files = sorted(ROOT.glob("tests/*/test_*.py"))
    missing, last = [], files
    for words in _CODE.findall(text):
        found = _TEST.fullmatch(words.strip())
        if found is None:
            continue
        if name := found["file"]:
            last = [
                file
                for file in files
                if f"/tests/{file.relative_to(ROOT / 'tests')}".endswith(f"/{name}")
            ]
        if not last or (found["test"] and not any(found["test"] in names_in(f) for f in last)):
            missing.append(words)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    assert missing_tests(text) == []
    code = " ".join([*_CODE.findall(text), *re.findall(r"```.*?```", text, re.DOTALL)])
    assert [path for path in _TOOL.findall(code) if not (ROOT / path).exists()] == []
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(_TARGET.findall(code)) <= set(targets)


@pytest.mark.parametrize("page", ["threats.md", "faults.md"])
def test_each_row_says_what_shows_it(page: str) -> None:
    text = (ROOT / "docs" / page).read_text().partition("\n## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for cells in rows:
        assert re.search(r"`[^`]*(test_|tests/|::)", cells[2]), cells


def test_a_test_that_is_gone_is_noticed() -> None:
    here = Path(__file__).name
    mine = "test_a_test_that_is_gone_is_noticed"
    assert missing_tests(f"`readme/{here}` `::{mine}` `{here}::{mine}` `{mine}`") == []
    assert missing_tests(f"`readme/{here}::test_gone`, `test_gone.py`, `{here}` `::test_gone`") == [
        f"readme/{here}::test_gone",
        "test_gone.py",
        "::test_gone",
    ]
