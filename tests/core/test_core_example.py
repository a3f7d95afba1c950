"""The C example: frame in, place out, no Python; compiled as its first lines say."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from core_driver import HERE, build_native, native_compiler, run_quietly
from small_vit import DIM, MODEL_HASH, SmallVit

from support.tools import require_tool
from tatvpr_edge.compilers.core_sources import core_folder, core_include
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.mapjournal import append, compact, journal_path
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

FRAME = np.random.default_rng(2).integers(0, 256, (50, 70, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, with a small model linked in the place of an artifact's library."""
    require_tool("gcc", "gcc")
    own = [core_folder() / "example" / "linux_main.c", HERE / "small_vit.c"]
    flags = ("-Wall", "-Wextra", "-D_GNU_SOURCE", "-ffp-contract=off", f"-I{core_include()}")
    return build_native(own, tmp_path_factory.mktemp("example") / "where", flags)


def write_inputs(folder: Path) -> tuple[Path, Path, Path]:
    model = SmallVit()
    (folder / "weights.bin").write_bytes(model.blob())
    header = f"P6\n{FRAME.shape[1]} {FRAME.shape[0]}\n255\n".encode()
    (folder / "frame.ppm").write_bytes(header + FRAME.tobytes())
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((9, DIM)).astype(np.float32)
    rows[6] = model.describe(FRAME, 0.4, 1.0)[0]
    info = MapInfo(MODEL_HASH.hex(), "int8", DIM, (Band.accepting(0.4, 1.0, 0.5),))
    poses = np.full((9, 7), np.nan)
    poses[:, :3] = np.arange(63, dtype=np.float64).reshape(9, 7)[:, :3]
    write_map(folder / "m.placemap", info, [make_places(info, [rows], poses)])
    return folder / "weights.bin", folder / "frame.ppm", folder / "m.placemap"


def test_frame_in_place_out(example: Path, tmp_path: Path) -> None:
    weights, frame, place_map = write_inputs(tmp_path)
    done = subprocess.run(
        [example, weights, frame, place_map, "0.4"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    expected = SmallVit().describe(FRAME, 0.4, 1.0)[0][:3]
    assert first.endswith("beginning " + " ".join(f"{v:.6f}" for v in expected))
    assert second.startswith("place 6 of 9, score 1.0000, at 42.00 43.00 44.00")


def test_faults_are_one_line_each(example: Path, tmp_path: Path) -> None:
    weights, frame, place_map = write_inputs(tmp_path)
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged.bin").write_bytes(damaged)
    (tmp_path / "short.ppm").write_bytes(frame.read_bytes()[:-1])
    (tmp_path / "deep.ppm").write_bytes(frame.read_bytes().replace(b"255\n", b"255x", 1))
    journal = place_map.with_name(f"{place_map.name}.journal")
    journal.symlink_to(journal)
    for arguments, text in (
        ([tmp_path / "damaged.bin", frame], "altered or half written"),
        ([tmp_path / "nothing.bin", frame], "No such file"),
        ([weights, tmp_path / "short.ppm"], "no binary PPM"),
        ([weights, tmp_path / "deep.ppm"], "no binary PPM"),
        ([weights, frame, place_map, "1.5"], "k is outside (0, 1]"),
        ([weights, frame, place_map, "nan"], "k is outside (0, 1]"),
        ([weights, frame, place_map, "0.4x"], "0.4x: is no number"),
        ([weights, frame, place_map, ""], "is no number"),
        ([weights, frame, weights], "no place map"),
        ([weights, tmp_path], f"{tmp_path}: Is a directory"),
        ([weights, frame, tmp_path], f"{tmp_path}: Is a directory"),
        ([weights, frame, place_map], "Too many levels of symbolic links"),
    ):
        done = subprocess.run([example, *arguments], capture_output=True, text=True)
        assert done.returncode == 1
        assert text in done.stderr and done.stderr.count("\n") == 1


def test_a_link_leads_to_the_journal_of_its_map_too(example: Path, tmp_path: Path) -> None:
    """Python keeps it beside the map that the link leads to."""
    weights, frame, _ = write_inputs(tmp_path)
    link = tmp_path / "elsewhere" / "link.placemap"
    link.parent.mkdir()
    link.symlink_to("../m.placemap")
    info = PlaceMap(link).info
    append(link, make_places(info, [SmallVit().describe(FRAME, 0.4, 1.0)[0][None]]))
    done = subprocess.run([example, weights, frame, link, "0.4"], capture_output=True, text=True)
    assert " of 10, score 1.0000" in done.stdout, done.stderr


MEANWHILE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

FILE *fopen(const char *path, const char *mode) {
    static int opened;
    if (++opened == atoi(getenv("NUMBER"))) {
        (void)!rename(getenv("COMPACTED"), getenv("BASE"));
        (void)unlink(getenv("JOURNAL"));
    }
    return ((FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen"))(path, mode);
}
"""


def test_a_map_that_is_compacted_while_it_is_opened_loses_no_place(
    example: Path, tmp_path: Path
) -> None:
    weights, frame, place_map = write_inputs(tmp_path)
    info = PlaceMap(place_map).info
    append(place_map, make_places(info, [SmallVit().describe(FRAME, 0.4, 1.0)[0][None]]))
    journal, shim = journal_path(place_map), tmp_path / "meanwhile.so"
    compacted = tmp_path / "compacted"
    shutil.copy(place_map, compacted)
    shutil.copy(journal, journal_path(compacted))
    compact(compacted)
    (tmp_path / "meanwhile.c").write_text(MEANWHILE)
    made = [str(tmp_path / "meanwhile.c"), "-o", str(shim), "-ldl"]
    run_quietly([*native_compiler(), "-shared", "-fPIC", *made])
    kept = {path: path.read_bytes() for path in (place_map, journal, compacted)}
    named = {"COMPACTED": compacted, "BASE": place_map, "JOURNAL": journal, "LD_PRELOAD": shim}
    for number in range(1, 6):  # before each file that it opens, and after the last
        for path, data in kept.items():
            path.write_bytes(data)
        around = os.environ | {name: str(path) for name, path in named.items()}
        done = subprocess.run(
            [example, weights, frame, place_map, "0.4"],
            env=around | {"NUMBER": str(number)},
            capture_output=True,
            text=True,
        )
        assert " of 10, score 1.0000" in done.stdout, (number, done.stderr)
    assert journal.exists()
