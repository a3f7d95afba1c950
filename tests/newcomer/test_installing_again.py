"""``pip install .`` in a clone, ``git pull``, and once more."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

#: Files that pyproject.toml names.
TEXTS = ("LICENSE", "README.md", "models/zoo/places/LICENSE.md")


def test_a_file_that_is_gone_is_not_installed_again(project_root: Path, tmp_path: Path) -> None:
    """A kernel that had moved was compiled from its old place too, and no build went through."""
    clone = tmp_path / "clone"
    for name in (*TEXTS, "pyproject.toml", "setup.py"):
        place = clone / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project_root / name, place)
    package = clone / "tatvpr_edge"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "1"\n')
    old, new = package / "before.c", package / "after.c"

    def installed() -> set[str]:
        command = [sys.executable, "-c", "import setuptools.build_meta as b; b.build_wheel('.')"]
        subprocess.run(command, cwd=clone, check=True, capture_output=True)
        return {path.name for path in clone.glob("build/lib/tatvpr_edge/*")}

    old.touch()
    assert installed() == {"__init__.py", "before.c"}
    old.rename(new)
    assert installed() == {"__init__.py", "after.c"}
