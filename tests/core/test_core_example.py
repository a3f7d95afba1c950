"""The C example: frame in, place out, no Python; compiled as its first lines say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from core_driver import HERE, native_compiler, run_quietly
from small_vit import DIM, MODEL_HASH, SmallVit

from tatvpr_edge.compilers.core_sources import core_folder, core_include, core_sources
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

FRAME = np.random.default_rng(2).integers(0, 256, (50, 70, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, native_arch: str) -> Path:
    """The example, with a small model linked in the place of an artifact's library."""
    folder = tmp_path_factory.mktemp("example")
    compiler = native_compiler()
    objects = []
    for number, source in enumerate(core_sources(native_arch)):
        target = folder / f"{number}.o"
        run_quietly([*compiler, "-O1", *source.flags, "-c", str(source.path), "-o", str(target)])
        objects.append(str(target))
    program = folder / "where"
    own = [str(core_folder() / "example" / "linux_main.c"), str(HERE / "small_vit.c")]
    flags = ["-D_GNU_SOURCE", "-ffp-contract=off", "-I", str(core_include()), "-pthread"]
    run_quietly([*compiler, "-O1", "-Wall", "-Wextra", *flags, *own, *objects, "-o", str(program)])
    return program


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
