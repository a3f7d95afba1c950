"""All of the project stands in pyproject.toml; here is what setuptools does not do by itself."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class FromNothing(build_py):
    """Leaves out what an earlier build left in ``build/lib``.

    ``pip install .`` in a clone keeps that folder. A file that was moved since would be installed
    in both places, and every C file of a folder of ``runtime/core`` is compiled.
    """

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib, "tatvpr_edge"), ignore_errors=True)
        super().run()


setup(cmdclass={"build_py": FromNothing})
