"""What the README says is what the project holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tatvpr_edge.boards.loader import load, names


@pytest.fixture(scope="module")
def readme(project_root: Path) -> str:
    return (project_root / "README.md").read_text()


def test_board_table_says_what_the_board_files_say(readme: str) -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| [^|]+ \| \**([a-z ]+)\** \|", readme, re.M))
    assert rows == {name: load(name).verification.level for name in names()}


def test_links_lead_somewhere(readme: str, project_root: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", readme)
    assert links
    for link in links:
        assert (project_root / link).exists(), link
