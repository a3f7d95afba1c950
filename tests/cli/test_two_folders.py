"""``evaluate MAP QUERIES`` and ``describe``: any two folders of anybody's frames."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.artifacts import scenes
from support.browser import browse
from tatvpr_edge.mapping import read_frame
from tatvpr_edge.models.evaluate.folders import compare_folders
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.errors import DataError

Run = Callable[..., subprocess.CompletedProcess[str]]

PROBE = """<script>
document.body.append(Object.assign(document.createElement("script"), {
  type: "application/json", id: "answer",
  textContent: JSON.stringify({
    broken: [...document.images].filter(i => !i.naturalWidth).length,
    images: document.images.length,
    rows: document.querySelectorAll(".query").length,
    right: document.querySelectorAll(".right").length,
    wide: document.documentElement.scrollWidth > innerWidth,
  })}));
</script></body>"""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Six places 100 m apart, and a query 10 m from each of the first four; one far away."""
    pictures = [Image.fromarray(scene) for scene in scenes(7)]
    made = tmp_path / "map", tmp_path / "asked"
    for folder in made:
        folder.mkdir()
    for place in range(6):
        pictures[place].save(made[0] / f"p{place}.png")
    for place in (0, 1, 2, 3, 6):
        pictures[place].resize((120, 90)).save(made[1] / f"q{place}.jpg", quality=90)
    table = ["name,x,y", *(f"p{i}.png,{100 * i},0" for i in range(6))]
    (made[0] / "poses.csv").write_text("\n".join(table))
    table = ["name;x;y", *(f"q{i}.jpg;{100 * i};10" for i in range(4)), "q6.jpg;5000;0"]
    (made[1] / "poses.csv").write_text("\n".join(table))
    return made


def test_recall_where_both_say_where_they_were(
    tatvpr: Run, tiny_host: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    arguments = ["evaluate", *folders, "--artifact", tiny_host, "--k", "1,.4"]
    shown = tatvpr(*arguments).stdout
    assert "6 places; 4 of 5 queries lie within 25 m of one and count" in shown
    assert shown.splitlines()[-2].split() == ["1", "100.0", "%", "100.0", "%", "100.0", "%"]
    nothing = ["--baseline", "none", "--tokens", "1", "--no-time"]  # what happens all the same
    document = json.loads(tatvpr(*arguments, "--json", *nothing).stdout)
    assert document["recall"]["0.4"] == {"@1": 100.0, "@5": 100.0, "@10": 100.0}
    assert (document["queries"], document["queries_counted"]) == (5, 4)
    assert document["best"]["1"]["q2.jpg"] == "p2.png"
    alone = tatvpr("evaluate", folders[0], folders[1] / "q2.jpg", *arguments[3:], "--json")
    assert json.loads(alone.stdout)["queries_counted"] == 1  # by the table beside it
    # One that is far from its place is wrong, whatever it looks like.
    shutil.move(folders[1] / "q0.jpg", tmp_path / "kept.jpg")
    shutil.copy(folders[1] / "q3.jpg", folders[1] / "q0.jpg")
    assert json.loads(tatvpr(*arguments, "--json").stdout)["recall"]["1"]["@1"] == 75.0
    assert "none of 5 queries lies within 3 m" in tatvpr(*arguments, "--within=3m", status=1).stderr


def test_frames_without_a_position_are_judged_by_nobody(
    tatvpr: Run, tiny_host: Path, folders: tuple[Path, Path]
) -> None:
    """Queries do not count; a place, which would count as wrong, is left out by name."""
    arguments = ["evaluate", *folders, "--artifact", tiny_host, "--k", "1"]
    asked, places = (folders[1] / "poses.csv", folders[0] / "poses.csv")
    asked.write_text(asked.read_text().replace("q3.jpg;300;10", "q3.jpg;;"))
    done = tatvpr(*arguments, "--html", "page.html")
    assert "3 of 5 queries lie within" in done.stdout
    assert "1 of 5 queries have no position" in done.stderr
    page = Path("page.html").read_text()
    assert "nan m" not in page and page.count('class="wrong"') == 4 * 5 - 3
    # The query of that place is right at the next one, which is near enough: it says so.
    places.write_text(places.read_text().replace("p1.png,100,0", "p1.png,,"))
    done = tatvpr(*arguments, "--within", "120m", "--json")
    document = json.loads(done.stdout)
    counted = [document[name] for name in ("places", "queries_counted", "queries_unplaced")]
    assert counted == [5, 3, 1]
    assert [frame["name"] for frame in document["skipped"]] == ["p1.png"]
    assert "p1.png" not in document["best"]["1"].values()
    assert f"left out: p1.png: no position in {places}" in tatvpr(*arguments).stderr
    said = tatvpr(*arguments, "--strict", status=1).stderr.splitlines()[-1]
    assert "poses.csv says no position of p1.png: fill it in, or remove the frame" in said


def test_queries_that_are_frames_of_the_map_are_counted(
    tatvpr: Run, tiny_host: Path, folders: tuple[Path, Path]
) -> None:
    """A folder asked for in itself was found to 100 %, and nothing said why."""
    (folders[1] / "p4.png").symlink_to(folders[0] / "p4.png")
    with (folders[1] / "poses.csv").open("a") as table:
        table.write("\np4.png;400;0")
    asked = ["evaluate", *folders, "--artifact", tiny_host, "--k", "1"]
    assert "1 of 6 queries are frames of the map, and find themselves" in tatvpr(*asked).stderr
    assert json.loads(tatvpr(*asked, "--json").stdout)["queries_of_map"] == 1


def test_a_folder_without_any_position_is_told_before_the_work(
    folders: tuple[Path, Path], tiny_host: Path
) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(*step: Any) -> None:
        told.append(step)

    with Localizer(tiny_host) as localizer:
        for folder in reversed(folders):
            names = sorted(path.name for path in folder.glob("[pq]?.*"))
            table = ["name,x,y", *(f"{name},," for name in names)]
            (folder / "poses.csv").write_text("\n".join(table))
            with pytest.raises(DataError, match="not one frame has a position: fill in") as refused:
                compare_folders(localizer, *folders, [1.0], progress=progress)
            assert str(refused.value).startswith(str(folder))
    assert not told


def test_a_floor_above_is_another_place(
    tatvpr: Run, tiny_host: Path, folders: tuple[Path, Path]
) -> None:
    """As for calibrate and a search; of an altitude that only one side knows nothing is made."""
    arguments = ["evaluate", *folders, "--artifact", tiny_host, "--k", "1", "--json"]
    table = folders[0] / "poses.csv"
    table.write_text(table.read_text().replace("y\n", "y,z\n").replace(",0\n", ",0,3\n") + ",3\n")
    assert json.loads(tatvpr(*arguments).stdout)["queries_counted"] == 4
    rows = [f"q{i}.jpg;{100 * i};0;{3 if i else 40}" for i in range(4)]
    (folders[1] / "poses.csv").write_text("\n".join(["name;x;y;z", *rows, "q6.jpg;5000;0;"]))
    document = json.loads(tatvpr(*arguments).stdout)
    assert (document["queries_counted"], document["recall"]["1"]["@1"]) == (3, 100.0)


def test_tables_and_descriptors_are_written(
    tatvpr: Run, tiny_host: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (folders[0] / "broken.png").write_bytes(b"no picture")
    (folders[0] / "poses.csv").write_text(
        (folders[0] / "poses.csv").read_text() + "\nbroken.png,1,1\n"
    )
    done = tatvpr(
        *("evaluate", *folders, "--artifact", tiny_host, "--k", ".4", "--top", "2"),
        *("--csv", "answers.csv", "--descriptors", "vectors"),
    )
    assert "left out: " in done.stderr and "broken.png" in done.stderr
    with open(tmp_path / "answers.csv", newline="") as source:
        rows = list(csv.DictReader(source))
    assert len(rows) == 5 * 2
    first = next(row for row in rows if row["query"] == "q1.jpg")
    assert (first["rank"], first["place"], first["metres"], first["right"]) == (
        *("1", "p1.png", "10.000", "true"),
    )
    assert {row["right"] for row in rows if row["query"] == "q6.jpg"} == {"false"}
    vectors = np.load(tmp_path / "vectors" / "map-k0.4.npy")
    names = json.loads((tmp_path / "vectors" / "map-k0.4.json").read_text())["frames"]
    assert vectors.shape == (6, 48) and vectors.dtype == np.float32 and len(names) == 6
    tatvpr("describe", folders[1], "--artifact", tiny_host, "--k", ".4", "-o", "own.npy")
    own = np.load(tmp_path / "own.npy")
    np.testing.assert_array_equal(own, np.load(tmp_path / "vectors" / "queries-k0.4.npy"))
    with Localizer(tiny_host, k=0.4) as localizer:
        frame = read_frame(folders[1] / "q0.jpg")
        np.testing.assert_array_equal(own[0], localizer.describe(frame))


@pytest.mark.parametrize("top", [2**63 - 1, 10**20])
def test_more_answers_than_there_are_places_are_all_of_them(
    tatvpr: Run, tiny_host: Path, folders: tuple[Path, Path], tmp_path: Path, top: int
) -> None:
    options = ["--k", ".4", "--top", str(top), "--csv", "answers.csv"]
    tatvpr("evaluate", *folders, "--artifact", tiny_host, *options)
    with open(tmp_path / "answers.csv", newline="") as source:
        rows = list(csv.DictReader(source))
    assert len({row["place"] for row in rows if row["query"] == "q1.jpg"}) == 6


def test_a_page_of_a_folder_whose_name_is_no_text_is_written(
    tatvpr: Run, tiny_host: Path, folders: tuple[Path, Path]
) -> None:
    odd = folders[0].rename(os.fsdecode(os.fsencode(folders[0]) + b"\xff"))
    tatvpr("evaluate", odd, folders[1], "--artifact", tiny_host, "--k", "1", "--html", "page.html")
    assert "map\\udcff" in Path("page.html").read_text()


def test_without_positions_a_page_shows_the_answers(
    tatvpr: Run, tiny_host: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (folders[1] / "poses.csv").unlink()
    done = tatvpr("evaluate", *folders, "--artifact", tiny_host, "--k", "1")
    assert "no recall: " in done.stdout and "does not say where" in done.stdout
    assert (tmp_path / "tatvpr-answers.html").is_file()


def test_a_page_that_cannot_be_written_is_told_before_the_work(
    tatvpr: Run, tiny_host: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders[1] / "poses.csv").unlink()
    monkeypatch.chdir("/proc")  # takes no file, of root's either
    told = tatvpr("evaluate", *folders, "--artifact", tiny_host, "--k", "1", status=1).stderr
    assert "cannot write tatvpr-answers.html" in told and "name another page with --html" in told
    assert "queries" not in told


@pytest.mark.slow
@pytest.mark.parametrize("width", [1100, 400])
def test_a_browser_shows_the_page(
    tatvpr: Run, tiny_host: Path, folders: tuple[Path, Path], tmp_path: Path, width: int
) -> None:
    (folders[1] / "q0.jpg").rename(folders[1] / "<b>&q0.jpg")
    table = (folders[1] / "poses.csv").read_text().replace("q0.jpg", "<b>&q0.jpg")
    (folders[1] / "poses.csv").write_text(table)
    options = ["--k", "1", "--top", "3", "--html", "page.html"]
    tatvpr("evaluate", *folders, "--artifact", tiny_host, *options)
    page = (tmp_path / "page.html").read_text()
    assert "100.0" in page and "4 of 5 queries lie within 25 m" in page
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("</body>", PROBE))
    shown = browse(probed, f"--window-size={width},2000", "--dump-dom")
    assert "CONSOLE" not in shown.stderr  # neither errors nor warnings of the page
    found = re.search(r'id="answer"[^>]*>(.*?)</script>', shown.stdout, re.DOTALL)
    assert found is not None
    answer = json.loads(found[1])
    assert answer == {"broken": 0, "images": 5 * 4, "rows": 5, "right": 4, "wide": False}


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["map"], "two folders", 2),
        (["map", "asked", "third"], "two folders", 2),
        (["map", "asked", "--protocol", "utm"], "two folders", 2),
        ([], "two folders", 2),
        (["map", "asked", "--stress"], "--stress: for --protocol", 2),
        (
            ["map", "asked", "--plot", "p.png", "--tokens", ".5"],
            "--tokens, --plot: for --protocol",
            2,
        ),
        (["map", "asked", "--baseline", "all"], "--baseline: for --protocol", 2),
        (["map", "asked", "--floors", "floor9"], "--floors: for --protocol", 2),
        (["--data", "map", "--protocol", "utm", "--csv", "a.csv"], "--csv: for MAP QUERIES", 2),
        (["--data", "map", "--protocol", "utm", "--every", "1s"], "--every: for MAP QUERIES", 2),
        (["map", "asked", "--csv", "a", "--html", "./a"], "want a path each", 2),
        (["map", "nowhere"], "no such file or folder", 1),
        (["map", "asked", "--k", "0.001"], "built for", 1),
        (["map", "asked", "--csv", "no/where.csv"], "cannot write", 1),
    ],
)
def test_wrong_usage_is_told(
    tatvpr: Run,
    tiny_host: Path,
    folders: tuple[Path, Path],
    arguments: list[str],
    words: str,
    status: int,
) -> None:
    options = ["--artifact", tiny_host] if arguments[1:] else []
    assert words in tatvpr("evaluate", *arguments, *options, status=status).stderr
