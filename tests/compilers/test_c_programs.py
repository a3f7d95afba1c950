"""C programs against an artifact, as docs/c-api.md tells their authors to make them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tatvpr_edge
from support.tools import require_tool
from tatvpr_edge.compilers.core_sources import core_folder
from tatvpr_edge.runtime import Localizer, MapWriter
from tatvpr_edge.runtime.mapjournal import compact, journal_path
from tatvpr_edge.spec.formats import FORMATS
from tatvpr_edge.spec.frames import plane_shapes, to_rgb

WIDTH, HEIGHT, FRAMES = 48, 32, 4
#: V4L2's names of our formats, as linux/videodev2.h defines them.
FOURCC = {
    "RGB888": "RGB3", "BGR888": "BGR3", "GRAY8": "GREY", "RGB565": "RGBP", "YUV422": "YUYV",
    "NV12": "NV12", "RGBA": "AB24", "BGRA": "AR24", "UYVY": "UYVY", "I420": "YU12", "NV21": "NV21",
    "GRAY10": "Y10 ", "GRAY12": "Y12 ", "GRAY16": "Y16 ",
}  # fmt: skip
U8 = NDArray[np.uint8]


@pytest.fixture(scope="module")
def artifact(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tatvpr_edge.build(
        "host", model=tiny_file, output=tmp_path_factory.mktemp("c") / "an artifact"
    )
    # what moves with the artifact must not name the place where it was made
    return Path(shutil.move(made, made.parent.parent / f"{made.parent.name}-moved"))


def compiled(artifact: Path, source: Path, where: Path) -> Path:
    """A program, by the lines that stand at the head of the examples."""
    cc, pkg_config = require_tool("cc", "gcc"), require_tool("pkg-config", "pkgconf")
    found = {"PKG_CONFIG_PATH": str(artifact / "lib" / "pkgconfig")}
    done = subprocess.run(
        [pkg_config, "--cflags", "--libs", "tatvpr"],
        env={**os.environ, **found},
        capture_output=True,
        text=True,
        check=True,
    )
    program = where / source.stem
    flags = ["-O2", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    command = [cc, *flags, str(source), *done.stdout.split()]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def raw_frames(name: str) -> tuple[bytes, list[U8]]:
    """Random frames of a format without padding, and the RGB that they stand for."""
    rng = np.random.default_rng(FORMATS[name])
    shapes = plane_shapes(name, WIDTH, HEIGHT)
    raw, images = b"", []
    for _ in range(FRAMES):
        planes = [rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes]
        raw += b"".join(plane.tobytes() for plane in planes)
        images.append(to_rgb(planes, name, WIDTH, HEIGHT))
    return raw, images


@pytest.fixture(scope="module")
def camera(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = core_folder() / "example" / "camera.c"
    return compiled(artifact, source, tmp_path_factory.mktemp("camera"))


def place_map(artifact: Path, images: list[U8], where: Path) -> Path:
    """A place for every image, a metre apart, all of them in the journal."""
    path = where / "m.placemap"
    with Localizer(artifact, k=0.2) as localizer:
        writer = MapWriter(path, localizer, bands=((0.2, 1.0),))
        for index, image in enumerate(images):
            writer.add(image, (index, 0, 0, 0, 0, 0, 1), f"Platz {index} ß")
    return path


def run(camera: Path, *words: str | Path | int) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in (camera, *words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", list(FORMATS))
def test_the_camera_example_finds_frames_of_every_format(
    camera: Path, artifact: Path, name: str, tmp_path: Path
) -> None:
    raw, images = raw_frames(name)
    frames = tmp_path / "frames"
    frames.write_bytes(raw)
    path = place_map(artifact, images, tmp_path)
    compact(path)
    done = run(camera, artifact / "weights.bin", path, frames, WIDTH, HEIGHT, FOURCC[name])
    assert (done.returncode, done.stderr) == (0, "")
    wanted = [
        f'place {i} of {FRAMES} "Platz {i} ß", score 1.0000, at {i}.00 0.00 0.00'
        for i in range(FRAMES)
    ]
    assert done.stdout.splitlines() == wanted


def test_what_was_added_is_found_before_and_after_it_is_folded_in(
    camera: Path, artifact: Path, tmp_path: Path
) -> None:
    raw, images = raw_frames("RGB888")
    (tmp_path / "frames").write_bytes(raw)
    path = place_map(artifact, images, tmp_path)
    words = (artifact / "weights.bin", path, tmp_path / "frames", WIDTH, HEIGHT, "RGB3")
    added = run(camera, *words)
    assert (added.returncode, added.stderr) == (0, "")
    assert len(added.stdout.splitlines()) == len(images)
    compact(path)
    folded = run(camera, *words)
    assert (folded.returncode, folded.stderr) == (0, "")
    assert folded.stdout == added.stdout


def test_a_place_of_unknown_position_is_not_at_nan(
    camera: Path, artifact: Path, tmp_path: Path
) -> None:
    raw, images = raw_frames("RGB888")
    (tmp_path / "frames").write_bytes(raw)
    with Localizer(artifact, k=0.2) as localizer:
        writer = MapWriter(tmp_path / "m", localizer, bands=((0.2, 1.0),))
        for image in images:
            writer.add(image)
    words = (artifact / "weights.bin", tmp_path / "m", tmp_path / "frames", WIDTH, HEIGHT, "RGB3")
    assert run(camera, *words).stdout.splitlines() == [
        f"place {i} of {FRAMES}, score 1.0000, position unknown" for i in range(FRAMES)
    ]


def test_a_journal_of_another_map_is_one_line(camera: Path, artifact: Path, tmp_path: Path) -> None:
    raw, images = raw_frames("RGB888")
    (tmp_path / "frames").write_bytes(raw)
    path = place_map(artifact, images, tmp_path)
    journal = journal_path(path)
    altered = bytearray(journal.read_bytes())
    altered[20] ^= 1
    journal.write_bytes(altered)
    done = run(camera, artifact / "weights.bin", path, tmp_path / "frames", WIDTH, HEIGHT, "RGB3")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "m.placemap.journal" in line and "altered" in line


def test_what_the_camera_example_cannot_use_is_one_line(
    camera: Path, artifact: Path, tmp_path: Path
) -> None:
    raw, images = raw_frames("YUV422")
    path = place_map(artifact, images, tmp_path)
    compact(path)
    (tmp_path / "short").write_bytes(raw[:-1])
    weights = artifact / "weights.bin"
    for words, text in (
        ((tmp_path / "short", WIDTH, HEIGHT, "YUYV"), "ends inside a frame"),
        ((tmp_path / "short", WIDTH, HEIGHT, "MJPG"), "no format of this library"),
        ((tmp_path / "short", WIDTH, HEIGHT), "name their format"),
        ((tmp_path / "none", WIDTH, HEIGHT, "YUYV"), "No such file"),
        ((tmp_path / "short", 0, HEIGHT, "YUYV"), "2 to 16384 pixels"),
        ((tmp_path / "short", WIDTH, "48x", "YUYV"), "48x: is no number"),
        ((tmp_path / "short", WIDTH, "48.5", "YUYV"), "2 to 16384 pixels"),
        (("/dev/null", WIDTH, HEIGHT), "VIDIOC_QUERYCAP"),  # a device, and no camera
    ):
        done = run(camera, weights, path, *words)
        assert done.returncode == 1
        assert text in done.stderr.splitlines()[-1]


def test_formats_are_those_that_v4l2_calls_so(tmp_path: Path) -> None:
    """The names that this test calls formats by are the headers' own."""
    source = (core_folder() / "example" / "camera.c").read_text()
    rows = re.findall(r"\{(V4L2_PIX_FMT_\w+), TATVPR_(\w+),", source)
    assert {ours for _, ours in rows} == set(FORMATS)
    program = "#include <linux/videodev2.h>\n#include <stdio.h>\nint main(void) {\n"
    program += "".join(
        f'    printf("%s %.4s\\n", "{ours}", (const char *)&(const __u32){{{theirs}}});\n'
        for theirs, ours in rows
    )
    (tmp_path / "names.c").write_text(program + "}\n")
    cc = require_tool("cc", "gcc")
    subprocess.run([cc, tmp_path / "names.c", "-o", tmp_path / "names"], check=True)
    said = subprocess.run([tmp_path / "names"], capture_output=True, text=True, check=True).stdout
    names = [tuple(line.split(" ", 1)) for line in said.splitlines()]
    assert set(FOURCC.items()) <= set(names)


TAGS = f"""\
#include "{core_folder()}/example/example.h"
int main(int argc, char **argv) {{
    const tatvpr_model model = load_model(argv[1]);
    const place_map opened = load_map(argv[2], &model);
    const tatvpr_map map = opened.base, none = {{.size = sizeof(none)}};
    const char *tag = NULL;
    size_t bytes = 0;
    printf("%d %d %d %d %d %d\\n", argc, (int)tatvpr_map_tag(NULL, 0, &tag, &bytes),
           (int)tatvpr_map_tag(&none, 0, &tag, &bytes), (int)tatvpr_map_tag(&map, 0, NULL, &bytes),
           (int)tatvpr_map_tag(&map, 0, &tag, NULL),
           (int)tatvpr_map_tag(&map, map.places, &tag, &bytes));
    for (uint64_t i = 0; i < map.places; i++) {{
        check("tag", tatvpr_map_tag(&map, i, &tag, &bytes));
        printf("%.*s|\\n", (int)bytes, tag);
    }}
    return 0;
}}
"""


def test_tags_of_places(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "tags.c").write_text(TAGS)
    path = tmp_path / "m.placemap"
    tags = ["", "Küche", "", "x" * 300, ""]
    with Localizer(artifact, k=0.2) as localizer:
        writer = MapWriter(path, localizer)
        for index, tag in enumerate(tags):
            writer.add(raw_frames("RGB888")[1][0], (index, 0, 0, 0, 0, 0, 1), tag)
    compact(path)
    done = run(compiled(artifact, tmp_path / "tags.c", tmp_path), artifact / "weights.bin", path)
    assert done.returncode == 0, done.stderr
    statuses, *said = done.stdout.splitlines()
    assert statuses == "3 1 1 1 1 27"  # TATVPR_ERR_NULL and TATVPR_ERR_ARGUMENT
    assert said == [f"{tag}|" for tag in tags]
