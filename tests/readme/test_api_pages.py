"""`make docs`: a page for each public module, made of the docstrings, that asks no network."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.tools import lacking
from tatvpr_edge.runtime import Localizer

MODULES = (
    "tatvpr_edge",
    "tatvpr_edge.runtime",
    "tatvpr_edge.mapping",
    "tatvpr_edge.ros",
    "tatvpr_edge.spec.errors",
)


@pytest.fixture(scope="module")
def pages(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as `make docs` writes them."""
    if importlib.util.find_spec("pdoc") is None:
        lacking("pdoc", "pip install 'tatvpr-edge[check]'")
    folder = tmp_path_factory.mktemp("api")
    command = [sys.executable, "tools/api_pages.py", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project_root)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_its_place(pages: Path, name: str) -> None:
    module = importlib.import_module(name)
    text = (pages / f"{name.replace('.', '/')}.html").read_text()
    public = getattr(module, "__all__", None) or [
        key for key, value in vars(module).items() if getattr(value, "__module__", "") == name
    ]
    assert public
    missing = [each for each in public if not re.search(rf'id="{re.escape(each)}"', text)]
    assert missing in ([], ["__version__"])


def test_what_a_class_has_of_a_base_without_a_page_has_its_place(pages: Path) -> None:
    """Localizer's k, tokens and budget were on no page."""
    text = (pages / "tatvpr_edge" / "runtime.html").read_text()
    members = [name for name in dir(Localizer) if not name.startswith("_")]
    assert "budget" in members
    assert [name for name in members if f'id="Localizer.{name}"' not in text] == []


def test_the_pages_ask_no_network(pages: Path) -> None:
    made = sorted(path.relative_to(pages).as_posix() for path in pages.rglob("*.html"))
    assert made == sorted(["index.html", *(f"{m.replace('.', '/')}.html" for m in MODULES)])
    for page in made:
        text = (pages / page).read_text()
        assert not re.search(r'<(script|link|img)[^>]*(src|href)="(https?:)?//', text), page
