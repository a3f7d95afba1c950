"""What earlier runs found, kept in the repository: ``fuzz/corpora/TARGET.zip``, one small input for
each branch. A run begins with them, beside the seeds.

``python -m fuzz.corpus [TARGET ...]`` makes them anew of ``build/fuzz/corpus`` and of what is kept:
what shows nothing that a shorter input does not show is left out, of a C target by libFuzzer, of a
Python one (atheris cannot) by the lines that it runs; then the shortest are taken.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

CORPORA = Path(__file__).resolve().parent / "corpora"
#: Of one target, packed: a corpus is cloned by everybody.
MOST_BYTES = 150_000
_EPOCH = (1980, 1, 1, 0, 0, 0)


def corpus_of(name: str) -> dict[str, bytes]:
    """The inputs that are kept of a target, by name; none where it has no archive."""
    path = CORPORA / f"{name}.zip"
    if not path.is_file():
        return {}
    with zipfile.ZipFile(path) as archive:
        return {entry: archive.read(entry) for entry in archive.namelist()}


def pack(name: str, inputs: Mapping[str, bytes], most_bytes: int = MOST_BYTES) -> Path:
    """Write a target's archive, the shortest inputs first, up to ``most_bytes``: the same inputs
    give the same bytes."""
    CORPORA.mkdir(exist_ok=True)
    path = CORPORA / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        packed = 0
        for key in sorted(inputs, key=lambda key: (len(inputs[key]), key)):
            archive.writestr(zipfile.ZipInfo(key, _EPOCH), inputs[key], zipfile.ZIP_DEFLATED)
            packed += archive.infolist()[-1].compress_size + 2 * (46 + len(key))
            if packed > most_bytes:
                break
    return path


def minimal(command: list[str], options: list[str], places: list[Path]) -> dict[str, bytes]:
    """The inputs below ``places`` that libFuzzer keeps of a target that is run by ``command``."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        given = [str(place) for place in places]
        subprocess.run(
            [*command, "-merge=1", *options, name, *given],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def telling(
    run: Callable[[bytes], None],
    modules: tuple[str, ...],
    known: Mapping[str, bytes],
    inputs: Mapping[str, bytes],
) -> dict[str, bytes]:
    """The inputs that run a line of these modules which no ``known`` and no shorter one runs."""
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_globals.get("__name__", "")
        if not any(name == module or name.startswith(f"{module}.") for module in modules):
            return None
        seen.add((name, frame.f_lineno))
        return trace

    kept = {}
    for key, data in [*known.items(), *sorted(inputs.items(), key=lambda item: len(item[1]))]:
        before = len(seen)
        sys.settrace(trace)
        try:
            run(data)
        finally:
            sys.settrace(None)
        if len(seen) > before and known.get(key) != data:
            kept[key] = data
    return kept


def main() -> int:
    """Make the archives of the targets named, or of all that have run here."""
    from fuzz import run, seeds
    from fuzz.targets import TARGETS

    names = [*run.C_TARGETS, *run.python_targets()]
    if unknown := set(sys.argv[1:]) - set(names):
        sys.exit(f"error: no target {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    for name in sys.argv[1:] or names:
        found = run.PLACE / "corpus" / name
        if not found.is_dir():
            print(f"{name}: has not run here, and stays as it is")
            continue
        places = [seeds.write_seeds(name, run.PLACE / "seeds"), found]
        if name in run.C_TARGETS:
            options = [f"-max_len={run.most_bytes(name)}"]
            path = pack(name, minimal(run.command_of(name), options, places))
        else:
            inputs = {p.name: p.read_bytes() for place in places for p in place.iterdir()}
            short = {k: v for k, v in inputs.items() if len(v) <= run.most_bytes(name)}
            target = TARGETS[name]
            path = pack(name, telling(target.run, target.modules, seeds.seeds_of(name), short))
        print(f"{path.name}: {len(corpus_of(name))} inputs, {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
