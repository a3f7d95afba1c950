"""Tables and names of positions as people have them: right, or one line with the remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatvpr_edge.mapping import FrameFile, find_poses
from tatvpr_edge.mapping.coordinates import metres_apart, metres_in_space, to_metres
from tatvpr_edge.mapping.table import read_table
from tatvpr_edge.models.data import formats
from tatvpr_edge.models.data.own import Division, read_own
from tatvpr_edge.models.train.config import DataConfig
from tatvpr_edge.spec.errors import DataError

NAMES = ("f.jpg", "a/g.jpg")


def frames_of(folder: Path, names: tuple[str, ...] = NAMES) -> list[FrameFile]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [FrameFile(folder / name, name) for name in names]


def poses_of(folder: Path, text: str | bytes, names: tuple[str, ...] = NAMES) -> np.ndarray:
    data = text if isinstance(text, bytes) else text.encode()
    frames = frames_of(folder, names)
    (folder / "poses.csv").write_bytes(data)
    return find_poses(folder, frames).values


PLAIN = "name,x,y,z\nf.jpg,1.5,2,3\na/g.jpg,4,5,6\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("f.jpg", "./f.jpg").replace("a/g.jpg", "./a//g.jpg"),
        PLAIN.replace("a/g.jpg", "a\\g.jpg"),
        PLAIN.replace("a/g.jpg", "g.jpg"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", " ; ").replace("1.5", "1,5"),
        PLAIN.replace("name,x,y,z", " Name , X , Y, z "),
        PLAIN.replace("name", "# name"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("name", "Path"),
        "sep=;\n" + PLAIN.replace(",", ";"),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN + "\n\n",
        PLAIN + "other.jpg,7,8,9\n",
    ],
)
def test_a_table_means_what_it_says(tmp_path: Path, text: str | bytes) -> None:
    poses = poses_of(tmp_path, text)
    assert poses[:, :3].tolist() == [[1.5, 2, 3], [4, 5, 6]]
    assert np.isnan(poses[:, 3:]).all()


@pytest.mark.parametrize("columns", ["x,y", "easting,northing", "lat,lon"])
@pytest.mark.parametrize("unknown", [",", "nan,NaN", " , "])
def test_a_map_takes_unknown_positions_and_training_does_not(
    tmp_path: Path, columns: str, unknown: str
) -> None:
    known = {"x,y": "1,2", "easting,northing": "500000,5000000", "lat,lon": "50,8"}[columns]
    poses = poses_of(tmp_path, f"name,{columns}\nf.jpg,{known}\na/g.jpg,{unknown}\n")
    assert np.isnan(poses[:, 0]).tolist() == [False, True]
    with pytest.raises(DataError, match=r"poses\.csv, line 3: no position"):
        formats.posed(tmp_path)
    for reader in (formats.positioned, lambda root: read_own(root, Division(by="poses"))):
        with pytest.raises(DataError, match=r"poses\.csv says no position of a/g\.jpg"):
            reader(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,x,y\nf.jpg,1,2\na/g.jpg,3,4\nf.jpg,5,6\n", r"line 4: f.jpg stands on line 2"),
        ("name,x,y\nf.jpg,1,2\na/g.jpg,3,4\n./f.jpg,5,6\n", r"stands on line 2"),
        ("name,x,y,X\nf.jpg,1,2,9\na/g.jpg,3,4,9\n", r"two columns are called 'x'"),
        ("name,x,y\nf.jpg,1,2\n", r"no row for a/g.jpg"),
        ("name,x,y\nf.jpg,1\n", r"line 2: has another number of columns"),
        ("name,x,y\nf.jpg,1,2\na/g.jpg,3,4,5\n", r"line 3: has another number of columns"),
        ("name,x,y\nf.jpg,1,up\na/g.jpg,3,4\n", r"line 2: y is 'up', which is no number"),
        ("name,x,y\nf.jpg,1,inf\na/g.jpg,3,4\n", r"line 2: y is infinite"),
        ("name,x,y\nf.jpg,1,2\na/g.jpg,-inf,4\n", r"line 3: x is infinite"),
        ("name,x,y\nh.jpg,1,2\n", r"no row for f.jpg"),
        (
            "name,x,y\nf.jpg,1,2\na/g.jpg,3,1e300\n",
            r"line 3: its position \(3, 1e\+300\) is outside",
        ),
        ("name,x,y\nf.jpg,1,\na/g.jpg,3,4\n", r"line 2: half a position: give x and y"),
        ("frame_no,x,y\n1,1,2\n", r"has the columns frame_no, x, y: expected a header"),
        ("name x y\nf.jpg 1 2\n", r"expected a header .*, between commas, semicolons or tabs"),
        # a SLAM's trajectory: time and pose, no header
        ("1.5 1 2 0 0 0 0 1\n2.5 1 2 0 0 0 0 1\n", r"header .*, between commas"),
        ("name,x,y,z\nf.jpg,1,2,\na/g.jpg,3,4,-2e9\n", r"line 3: its altitude is -2e\+09"),
        ("name,lat,lon\nf.jpg,91,2\na/g.jpg,3,4\n", r"line 2.*outside geographic"),
        ("name,easting,northing\nf.jpg,48.1,11\na/g.jpg,3,4\n", r"line 2.*outside utm"),
        ("name,easting,northing,lat,lon\nf.jpg,5e5,1,2,3\n", r"positions as .* and as "),
        ("name,x,y,qx,qy,qz,qw\nf.jpg,1,2,0,0,0,0\na/g.jpg,3,4,0,0,0,1\n", r"line 2: .* is zero"),
        ("name,x,y,qx,qy,qz,qw\nf.jpg,1,2,0,0,0,2\na/g.jpg,3,4,0,0,0,1\n", r"length 2"),
        ("name,x,y,qx,qy,qz,qw\nf.jpg,1,2,0,0,0,.5\na/g.jpg,3,4,0,0,0,1\n", r"length 0.5"),
        ("name,x,y,qx,qy,qz,qw\nf.jpg,1,2,0,0,,1\na/g.jpg,3,4,0,0,0,1\n", r"half given"),
        ("name,x,y,qz,qw\nf.jpg,1,2,0,1\na/g.jpg,3,4,0,1\n", r"qz, qw but not all"),
        ("name,x,y,yaw\nf.jpg,1,2,90\na/g.jpg,3,4,0\n", r"line 2: yaw is 90.*yaw_deg"),
        ("name,x,y,yaw,yaw_deg\nf.jpg,1,2,0,0\na/g.jpg,3,4,0,0\n", r"yaw and yaw_deg"),
        ("name,x,y,roll\nf.jpg,1,2,0\na/g.jpg,3,4,0\n", r"roll but no yaw"),
        ("name,x,y,heading\nf.jpg,1,2,0\na/g.jpg,3,4,0\n", r"heading says no zero"),
        ("", r"has no rows"),
        (b"name,x,y\n\xe9.jpg,1,2\n", r"cannot be read as CSV"),
    ],
)
def test_a_table_that_could_mislead_is_told(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as told:
        poses_of(tmp_path, text)
    assert str(tmp_path / "poses.csv") in str(told.value) and "\n" not in str(told.value)


def test_a_table_that_is_not_there_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: No such file or directory$"):
        read_table(tmp_path / "none.csv")


def test_a_bare_name_must_fit_one_folder(tmp_path: Path) -> None:
    names = ("a/f.jpg", "b/f.jpg")
    with pytest.raises(DataError, match=r"f\.jpg fits a/f\.jpg and b/f\.jpg"):
        poses_of(tmp_path, "name,x,y\nf.jpg,1,2\n", names)
    poses = poses_of(tmp_path, "name,x,y\nb/f.jpg,1,2\na/f.jpg,3,4\n", names)
    assert poses[:, 0].tolist() == [3, 1]


def test_orientations_become_quaternions(tmp_path: Path) -> None:
    half = float(np.sqrt(0.5))
    for column, value in (("yaw_deg", 90), ("yaw", np.pi / 2)):
        text = f"name,x,y,{column}\nf.jpg,1,2,{value}\na/g.jpg,3,4,\n"
        poses = poses_of(tmp_path, text)
        np.testing.assert_allclose(poses[0, 3:], [0, 0, half, half], atol=1e-12)
        assert np.isnan(poses[1, 3:]).all()
    text = "name,x,y,roll_deg,pitch_deg,yaw_deg\nf.jpg,1,2,90,0,0\na/g.jpg,1,2,0,90,0\n"
    poses = poses_of(tmp_path, text)
    np.testing.assert_allclose(poses[0, 3:], [half, 0, 0, half], atol=1e-12)
    np.testing.assert_allclose(poses[1, 3:], [0, half, 0, half], atol=1e-12)
    text = "name,x,y,qx,qy,qz,qw\nf.jpg,1,2,0,0,0.7071,0.7071\na/g.jpg,3,4,,,,\n"
    np.testing.assert_allclose(np.linalg.norm(poses_of(tmp_path, text)[0, 3:]), 1, atol=1e-12)


# ---- one meaning for maps and training ---------------------------------------------------------


@pytest.mark.parametrize("key", ["name", "path", "file"])
def test_training_reads_a_table_as_maps_do(tmp_path: Path, key: str) -> None:
    names = tuple(f"{clip}/{i}.jpg" for clip in "ab" for i in range(2))
    frames = frames_of(tmp_path, names)
    rows = [f"./{name};{index}00,5;0" for index, name in enumerate(names)]
    text = "\n".join([f"{key};X;Y", *reversed(rows)])
    (tmp_path / "poses.csv").write_text(text, encoding="utf-16")
    mapped = find_poses(tmp_path, frames)
    trained = formats.posed(tmp_path)
    assert [path.name for path in trained.paths] == [Path(n).name for n in reversed(names)]
    np.testing.assert_array_equal(trained.positions[::-1], mapped.positions)


def test_degrees_train_in_cells_of_metres(tmp_path: Path) -> None:
    names = tuple(f"@{48 + i // 2 * 0.001 + i % 2 * 1e-6:.6f}@11.5@.jpg" for i in range(8))
    frames_of(tmp_path, names)
    places = formats.open_source(DataConfig(format="utm", root=str(tmp_path)))
    assert len(places.places) == 4


# ---- names -------------------------------------------------------------------------------------


def named(
    folder: Path, *names: str, pose_frame: str | None = None
) -> tuple[list[list[float]], str]:
    found = find_poses(folder, frames_of(folder, names), pose_frame=pose_frame)
    return found.positions.tolist(), found.frame


@pytest.mark.parametrize("columns", ["lat,lng", "latitude_deg,longitude_deg", "lat_deg,lon_deg"])
def test_degrees_are_known_by_any_usual_name(tmp_path: Path, columns: str) -> None:
    (tmp_path / "poses.csv").write_text(f"name,{columns}\nf.jpg,48.1,11.6\n")
    assert named(tmp_path, "f.jpg") == ([[11.6, 48.1]], "geographic")


def test_names_in_utm_and_in_degrees(tmp_path: Path) -> None:
    assert named(tmp_path, "@0543210.5@4170000@.jpg", "@543211@4170001@N@.jpg") == (
        [[543210.5, 4170000], [543211, 4170001]],
        "utm",
    )
    # x points east in every pose frame: names give the latitude first.
    degrees = named(tmp_path, "@48.137154@11.576124@.jpg", "@-33.8688@151.2093@.jpg")
    assert degrees == ([[11.576124, 48.137154], [151.2093, -33.8688]], "geographic")
    assert named(tmp_path, "@1.5@2@.jpg", pose_frame="local") == ([[1.5, 2]], "local")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("@48.137154@11.576124@.jpg", "@543210@4170000@.jpg"), "no UTM easting and northing"),
        (("@1.5@2@.jpg", "@3@4@.jpg"), "may be degrees or metres"),
        (("@0.0001@0.0002@.jpg", "@12.3456@7.8912@.jpg"), "may be degrees or metres"),
        (("@1234.5678@22.1234@.jpg",), "neither a UTM easting"),
        (("@4170000@543210@.jpg",), "neither a UTM easting"),
        (("@543210@4170000@.jpg", "plain.jpg"), "plain.jpg has no position"),
        (("@nan@4@.jpg",), "is not named @utm_e@utm_n@"),
    ],
)
def test_names_that_could_mislead_are_told(
    tmp_path: Path, names: tuple[str, ...], words: str
) -> None:
    with pytest.raises(DataError, match=words) as told:
        named(tmp_path, *names)
    assert "poses.csv with name, x, y beside" in str(told.value)  # what every command takes


def test_a_table_of_places_alone_says_nothing_of_positions(tmp_path: Path) -> None:
    """What `finetune` learned from is mapped as it is; a misspelt position stays an error."""
    frames = [FrameFile(tmp_path / name, name) for name in ("a.jpg", "b.jpg")]
    table = tmp_path / "poses.csv"
    table.write_text("name,place\na.jpg,hall\n")
    assert find_poses(tmp_path, frames).source == "none"
    with pytest.raises(DataError, match="columns name, place: expected"):
        find_poses(tmp_path, frames, table)
    for columns in ("name,place,x", "name,where", "name,place,latitude"):
        table.write_text(f"{columns}\na.jpg{',1' * columns.count(',')}\n")
        with pytest.raises(DataError, match="has the columns"):
            find_poses(tmp_path, frames)


def test_a_frame_that_the_user_names_must_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside utm"):
        named(tmp_path, "@48.137154@11.576124@.jpg", pose_frame="utm")
    with pytest.raises(DataError, match="outside geographic"):
        named(tmp_path, "@543210@4170000@.jpg", pose_frame="geographic")
    (tmp_path / "poses.csv").write_text("name,easting,northing\nf.jpg,543210,4170000\n")
    for pose_frame in ("geographic", "local"):
        with pytest.raises(DataError, match=f"columns say utm, --pose-frame says {pose_frame}"):
            find_poses(tmp_path, frames_of(tmp_path, ("f.jpg",)), pose_frame=pose_frame)


def test_a_letter_with_an_accent_is_one_however_it_is_written(tmp_path: Path) -> None:
    """A Mac's files and a table typed elsewhere differ in it."""
    frames = [FrameFile(tmp_path / "cafe\u0301.jpg", "cafe\u0301.jpg")]
    (tmp_path / "poses.csv").write_text("name,x,y\ncaf\u00e9.jpg,1,2\n", encoding="utf-8")
    assert find_poses(tmp_path, frames).values[0, :2].tolist() == [1, 2]


# ---- distances ---------------------------------------------------------------------------------


@given(st.floats(-80, 80), st.floats(-179, 179), st.floats(-500, 500), st.floats(-500, 500))
def test_degrees_are_as_far_apart_as_their_metres(
    latitude: float, longitude: float, east: float, north: float
) -> None:
    scale = 111_195.08  # metres in a degree of a great circle
    there = longitude + east / scale / np.cos(np.radians(latitude)), latitude + north / scale
    both = np.array([[longitude, latitude], there])
    apart = metres_apart(both[:1], both[1:], "geographic")[0, 0]
    assert apart == pytest.approx(np.hypot(east, north), rel=2e-3, abs=0.01)
    flat = to_metres(both, "geographic")
    assert np.hypot(*(flat[0] - flat[1])) == pytest.approx(apart, rel=2e-3, abs=0.01)


def test_degrees_on_both_sides_of_the_180th_meridian_lie_together() -> None:
    both = np.array([[179.9999, -17.0], [-179.9999, -17.0], [179.9998, -17.001]])
    flat = to_metres(both, "geographic")
    apart = metres_apart(both, both, "geographic")
    found = np.hypot(*(flat[:, None] - flat).T)
    assert found == pytest.approx(apart, rel=2e-3, abs=0.01)
    assert flat[1, 0] > flat[0, 0] > flat[2, 0]


def test_altitude_counts_where_both_are_known() -> None:
    one, other = np.array([[0.0, 0, 1], [0, 0, np.nan]]), np.array([[3.0, 0, 5], [3, 0, 5]])
    assert metres_in_space(one, other, "local").tolist() == [5, 3]
    assert metres_apart(one, other, "local").tolist() == [[5, 5], [3, 3]]
    one[:, :2] = other[:, :2] = (7.0, 50.0)
    assert metres_in_space(one, other, "geographic").tolist() == [4, 0]


def test_a_quarter_of_the_equator() -> None:
    ends = np.array([[0.0, 0.0], [90.0, 0.0], [0.0, 90.0]])
    apart = metres_apart(ends, ends, "geographic")
    assert apart[0, 1] == pytest.approx(np.pi / 2 * 6_371_008.8)
    assert apart[1, 2] == pytest.approx(apart[0, 2])
    assert metres_apart(ends, ends, "utm")[0, 1] == 90


def test_tables_below_the_folder_are_told_not_to_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A table for each drive: positions were dropped, and places told by time, without a word."""
    frames = frames_of(tmp_path, ("one/f.jpg", "one/g.jpg", "two/f.jpg"))
    assert find_poses(tmp_path, frames).source == "none" and not caplog.records
    for drive in ("one", "two"):
        (tmp_path / drive / "poses.csv").write_text("name,x,y\nf.jpg,1,2\n")
    assert find_poses(tmp_path, frames).source == "none"
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{tmp_path}/one/poses.csv is not read, nor is any other below ")
    assert f"all rows into {tmp_path}/poses.csv" in said
    (tmp_path / "poses.csv").write_text("name,x,y\none/f.jpg,1,2\none/g.jpg,2,2\ntwo/f.jpg,1,2\n")
    assert find_poses(tmp_path, frames).source == str(tmp_path / "poses.csv")
    assert len(caplog.records) == 1
