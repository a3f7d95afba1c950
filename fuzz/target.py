"""One Python target under atheris: ``python -m fuzz.target NAME [OPTION ...] [CORPUS ...]``.

Run as a program of its own, because modules are instrumented as they are first imported.
"""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    name = sys.argv.pop(1)
    from fuzz import seeds
    from fuzz.targets import TARGETS

    chosen = TARGETS[name]
    with atheris.instrument_imports(include=list(chosen.modules)):
        for module in chosen.modules:
            importlib.import_module(module)
    for data in seeds.seeds_of(name).values():  # what is made once is made before time is taken
        chosen.run(data)
    atheris.Setup(sys.argv, chosen.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
