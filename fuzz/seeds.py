"""Where fuzzing begins: small real files, made by the code that users run.

Inputs that failed once lie in ``fuzz/regressions/TARGET/``; they are seeds as well, and unit tests.
What earlier runs found lies in ``fuzz/corpora``.
"""

from __future__ import annotations

import functools
import json
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.corpus import corpus_of

ROOT = Path(__file__).resolve().parent.parent
REGRESSIONS = Path(__file__).resolve().parent / "regressions"
for _folder in (ROOT / "tests", ROOT / "tests" / "core"):  # what tests are made of
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

Seeds = dict[str, bytes]
HASH = bytes(range(32)).hex()


def small_map(kind: str, places: int = 3, bands: int = 1, rich: bool = False) -> bytes:
    """A map's bytes; ``rich`` ones are calibrated, with means where they may have them."""
    from tatvpr_edge.spec.calibration import Calibration, SequenceCalibration
    from tatvpr_edge.spec.maptypes import Band, MapInfo, make_places
    from tatvpr_edge.spec.placemap import write_map

    rng = np.random.default_rng(places)
    dim = 16 if kind == "int8" else 32
    mean = tuple(rng.standard_normal(dim).tolist()) if rich and kind != "int8" else None
    following = SequenceCalibration(5, 1.5, (-3.0, 1.0, 2.0, 3.0, 4.0, 0.5), 0.9, 0.5)
    judging = (
        Calibration("score", 0.25, precision=0.9, recall=0.5),
        Calibration("logistic", 0.5, (-1.0, 2.0, 3.0), 20.0, 3, 0.9, 0.25),
        Calibration("rooted", 0.5, (-1.0, 2.0, 3.0), 20.0, 3, 0.9, 0.25, following),
    )
    ks = (0.2, 0.4, 0.8)[:bands]
    judged = judging[: len(ks)] if rich else (None,) * len(ks)
    made = tuple(Band(k, 1.0, one, mean) for k, one in zip(ks, judged, strict=True))
    info = MapInfo(HASH, kind, dim, made, "local", dim)
    rows = [rng.standard_normal((places, dim)).astype(np.float32) for _ in ks]
    poses = rng.standard_normal((places, 7))
    poses[:, 3:] /= np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
    poses[::2, 2:] = np.nan
    tags = [f"place {i} \u00e9" for i in range(places)]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m.placemap"
        write_map(path, info, [make_places(info, rows, poses, tags, times=[1e9] * places)])
        return path.read_bytes()


def map_seeds() -> Seeds:
    """All kinds, empty and full, one band and several, calibrated and not."""
    return {
        f"{kind}-{places}-{bands}-{rich:d}": small_map(kind, places, bands, rich)
        for kind in ("int8", "binary", "weighed")
        for places, bands, rich in ((0, 1, False), (1, 1, False), (3, 2, False), (5, 3, True))
    }


def blob_seeds() -> Seeds:
    """Patterns of weights, and a small model's file, whole and cut."""
    from small_vit import SmallVit

    from fuzz.clang import SMALL_SIZES

    whole = bytes(SmallVit(**SMALL_SIZES).blob())
    return {
        "zeros": bytes([1, 0, 0x7F, 0]),
        "ones": bytes([1, 1, 0xFF, 255, 255, 127, 63]),
        "mixed": bytes([1, 2, 0x33, *range(64)]),
        "whole": bytes(3) + whole,
        "cut": bytes(3) + whole[:200],
    }


def frame_seeds() -> Seeds:
    """Every format, a small size, plain strides."""
    return {
        f"format{number}": struct.pack(
            "<BBHHBHBB9sH", number, 0, 24 + 8 * (number % 3), 16, 31, 60000, 0, 0, bytes(9), number
        )
        + bytes(range(64))
        for number in range(1, 15)
    }


def journal_seeds() -> Seeds:
    """A journal as appends leave it, torn, and the bodies of its records for the sealed ones."""
    from tatvpr_edge.runtime.mapjournal import append, journal_path
    from tatvpr_edge.spec.maptypes import make_places
    from tatvpr_edge.spec.placemap import read_base

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m.placemap"
        path.write_bytes(small_map("int8"))
        info = read_base(path).info
        for number in range(2):
            rows = np.random.default_rng(number).standard_normal((1, info.dim)).astype(np.float32)
            append(path, make_places(info, [rows], np.full((1, 7), np.nan), [f"n{number}"]))
        whole = journal_path(path).read_bytes()
    records, at, parts = whole[64:], 0, []
    while at < len(records):
        _, length, before, count = struct.unpack_from("<4sIII", records, at)
        body = records[at + 16 : at + length - 8]
        parts.append(struct.pack("<II", before, len(body) | count << 16) + body)
        at += length
    return {
        "whole": whole,
        "torn": whole[:-9],
        "one-body": parts[0],
        "two-bodies": b"".join(parts),
    }


def core_journal_seeds() -> Seeds:
    """A small map and a journal of it: the map's length, the map, the journal."""
    found = {}
    base = small_map("int8")
    for name, journal in journal_seeds().items():
        found[name] = struct.pack("<I", len(base)) + base + journal
    return found


def _artifact(folder: Path) -> Path:
    from support.board import make_artifact

    return make_artifact(folder / "artifact").root


def manifest_seeds() -> Seeds:
    """A small artifact's."""
    with tempfile.TemporaryDirectory() as name:
        data = (_artifact(Path(name)) / "manifest.json").read_bytes()
    document = json.loads(data)
    document["profile"] = {"device": {"name": "x"}, "points": []}
    document["serial"] = 100
    return {"plain": data, "profiled": json.dumps(document).encode(), "empty": b"{}"}


def release_list_seeds() -> Seeds:
    """Lists with and without a signature's stamp."""
    from tatvpr_edge.runtime.table import Row, Stamp, make_table

    rows = [Row("artifact/manifest.json", 7, "0" * 64), Row("python", 9, "f" * 64, True)]
    return {
        "plain": make_table("model", rows, "m.placemap").text(),
        "stamped": make_table("model", rows, "", Stamp(100, "host", None)).text(),
        "expires": make_table("model", rows, "", Stamp(1, "host", 2_000_000_000)).text(),
    }


def agent_seeds() -> Seeds:
    """Answers of a board, by the frames that carry them."""
    from tatvpr_edge.deploy.answers import ANSWERS
    from tatvpr_edge.deploy.protocol import json_frame

    keys: dict[str, Any] = {"keys": [], "enforced": None, "trust": None, "trust_fault": None}
    release = {"name": "r", "live": True, "previous": False, "failed": None, "bytes": 1, "files": 2}
    finished = {"release": "r", "before": None, "changed": True, "health": {}, "removed": [],
                "service": None, "restarted": [], "signer": None}  # fmt: skip
    hello = {"version": 1, "root": "/r", "python": "3.11", "machine": "x86_64", "numpy": True,
             "runtime": None, "free_bytes": 9, "user": 0, "live": None}  # fmt: skip
    answers = {
        "hello": hello,
        "begin": {"release": "r", "installed": False,
                  "need": [{"index": 0, "have": 0, "sha256": ""}]},
        "commit": finished,
        "status": {"root": "/r", "live": "r", "previous": None, "releases": [release], **keys},
        "trust": keys,
    }  # fmt: skip
    order = sorted(ANSWERS)
    step = json_frame({"event": "step", "name": "hash"})
    alive = json_frame({"event": "alive"})
    return {
        operation: bytes([order.index(operation)]) + alive + step + json_frame({"answer": answer})
        for operation, answer in answers.items()
    } | {"error": b"\0" + json_frame({"error": "no room", "kind": "DeployError"})}


def onnx_seeds() -> Seeds:
    """A tiny model: whole, of few numbers, with a reference to a file; and one that is not ours."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from support.tiny_model import tiny_model

    whole = tiny_model("cls")
    kept = onnx.ModelProto()
    kept.CopyFrom(whole)
    for tensor in kept.graph.initializer:  # the shapes stay, the numbers go: a few kB are left
        shape = [min(int(size), 4) for size in tensor.dims]
        array = numpy_helper.to_array(tensor)
        small = array[tuple(slice(size) for size in shape)]
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(small), tensor.name))
    outside = onnx.ModelProto()
    outside.CopyFrom(kept)
    tensor = outside.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "16")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    bare = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["frame"], ["descriptor"])],
            "bare",
            [helper.make_tensor_value_info("frame", TensorProto.FLOAT, [1, 3, 8, 8])],
            [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [1, 3, 8, 8])],
        )
    )
    return {
        "whole": whole.SerializeToString(),
        "shrunk": kept.SerializeToString(),
        "outside": outside.SerializeToString(),
        "bare": bare.SerializeToString(),
    }


def telemetry_seeds() -> Seeds:
    """Lines as the tools print them."""
    jetson = (
        "01-01-2024 10:00:00 RAM 2448/7620MB (lfb 2x4MB) CPU [1%@729,off] EMC_FREQ 0% GR3D_FREQ 0% "
        "cpu@45.5C soc2@44C gpu@-256C VDD_IN 4756mW/4756mW VDD_CPU_GPU_CV 480mW/480mW NC 0mW/0mW"
    )
    pi = "3V7_WL_SW_A current(0)=0.097 A\n 3V7_WL_SW_V volt(8)=3.71 V\n EXT5V_V volt(24)=5.1 V"
    return {
        "tegrastats": jetson.encode(),
        "older": b"VDD_IN 5000/5000 VDD_SOC -1/2/3 thermal@31.5C",
        "pmic": pi.encode(),
        "nvpmodel": b"NV Power Mode: MAXN_SUPER\n2\n",
        "throttled": b"throttled=0x50005",
    }


def poses_seeds() -> Seeds:
    """Tables as spreadsheets, robots and scripts write them."""
    return {
        "local": b"name,x,y,z,yaw_deg\na.jpg,1,2,,90\nb.jpg,3,4,5,\nsub/c.jpg,5,6,7,-1\n",
        "utm": b"name;easting;northing\na.jpg;500000,5;4649776,2\nb.jpg;1;2\nc.jpg;1;2",
        "geographic": b"# name\tlatitude\tlongitude\na.jpg\t52.1\t13.2\nb.jpg\t0\t0\nc.jpg\t1\t1\n",
        "turned": b"\xef\xbb\xbfpath,x,y,qx,qy,qz,qw\na.jpg,0,0,0,0,0,2\nb.jpg,1,1,1,1,1,1\n",
        "wide": "name|x|y\na.jpg|1e3|-2\n".encode("utf-16"),
    }


def training_seeds() -> Seeds:
    """The shipped recipes."""
    recipes = sorted((ROOT / "models" / "train" / "recipes").glob("*.toml"))
    return {path.stem: path.read_bytes() for path in recipes} | {"empty": b""}


def board_seeds() -> Seeds:
    """The shipped boards."""
    return {path.stem: path.read_bytes() for path in sorted((ROOT / "boards").glob("*.toml"))}


SEEDS: dict[str, Callable[[], Seeds]] = {
    "core-map": map_seeds,
    "core-blob": blob_seeds,
    "core-frame": frame_seeds,
    "core-journal": core_journal_seeds,
    "map": map_seeds,
    "journal": journal_seeds,
    "manifest": manifest_seeds,
    "release-list": release_list_seeds,
    "agent": agent_seeds,
    "onnx": onnx_seeds,
    "telemetry": telemetry_seeds,
    "poses": poses_seeds,
    "training": training_seeds,
    "board": board_seeds,
}


@functools.cache
def seeds_of(name: str) -> Seeds:
    """The seeds of a target, and what failed once."""
    failed = sorted((REGRESSIONS / name).glob("*")) if (REGRESSIONS / name).is_dir() else []
    return {**SEEDS[name](), **{f"once-{path.name}": path.read_bytes() for path in failed}}


def write_seeds(name: str, folder: Path) -> Path:
    """The seeds of a target, and what earlier runs found, as files; gives their folder."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    for seed, data in {**corpus_of(name), **seeds_of(name)}.items():
        (place / seed).write_bytes(data)
    return place
