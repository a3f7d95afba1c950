"""Whatever a program hands to a public call by mistake is told in one line that names it.

Every argument of every call is exchanged for values that a caller might hold by accident (nothing,
another type, a number out of range), one at a time: the call works, or it raises an error of ours.
A TypeError from deep inside names neither the argument nor the remedy.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tatvpr_edge
from support.serving import serving
from tatvpr_edge import mapping, runtime
from tatvpr_edge.runtime.telemetry import FedSource, Sampler
from tatvpr_edge.spec.errors import TatvprError

#: What stands where something else belongs.
JUNK: tuple[Any, ...] = (
    *(None, "x", "", b"x", True, -1, 0, 1.5, 10**30, math.nan, math.inf, 1j),
    *(
        [],
        ["x"],
        {},
        object(),
        np.zeros(3),
        np.array(None),
        np.zeros((2, 2)),
        Path("nowhere"),
        "x\0",
    ),
    len,
    # Numbers that some arguments may hold and some may not.
    *(np.float32("nan"), (1.0, math.inf), (1.0, 2.0, math.nan), (math.nan,) * 7, (1e9, 1e9, 0.0)),
    (1.0, 2.0, 3.0, 0.0, 0.0, 0.0, math.inf),
)


@dataclass(frozen=True)
class Call:
    """A public call and arguments with which it works."""

    of: Callable[..., Any]
    good: dict[str, Any]


def refusals(call: Call, names: tuple[str, ...] | None = None) -> list[str]:
    """What went wrong otherwise than by an error of ours, or in more than one line."""
    wrong = []
    for name in call.good if names is None else names:
        for junk in JUNK:
            try:
                made = call.of(**{**call.good, name: junk})
            except TatvprError as error:
                if "\n" in str(error) or not str(error):
                    wrong.append(f"{name}={junk!r}: {error!r}")
            except Exception as error:
                wrong.append(f"{name}={junk!r}: {type(error).__name__}: {error}")
            else:
                close = getattr(made, "close", None)
                if close is not None:
                    close()
    return wrong


@pytest.fixture
def calls(
    tiny_host: Path, scene_map: Path, frames: NDArray[np.uint8], tmp_path: Path
) -> dict[str, Call]:
    """Public calls by name; the map that they add to is a copy."""
    own = shutil.copy(scene_map, tmp_path / "own.placemap")
    frame = frames[1]
    localizer = runtime.Localizer(tiny_host, own)
    path = runtime.Localizer(tiny_host, own, sequence=3)
    fake = runtime.FakeLocalizer(lambda _: runtime.FakeLocalizer.match(1))
    writer = runtime.MapWriter(own, localizer)
    asked = {
        "frame": frame,
        "bgr": False,
        "top": 1,
        "near": (1.0, 0.0),
        "radius": 5.0,
        "exclude_last": 0,
        "time_s": 1e9,
    }
    terms = {
        "pose": (1.0, 0.0),
        "tag": "a",
        "novelty": 0.99,
        "novelty_m": 3.0,
        "max_places": 1000,
        "max_bytes": 10**8,
        "time_s": 1e9,
    }
    made = {"artifact": tiny_host, "map": own, "k": 0.4, "tokens": 1.0, "sequence": 1}
    fed = FedSource("own")
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "1.ppm").write_bytes(b"P6 1 1 255\n" + bytes(3))
    ended = tatvpr_edge.stream(tmp_path / "drive")
    ended.close()
    return {
        "Localizer": Call(runtime.Localizer, {**made, "kernels": None, "threads": 0}),
        "Localizer auto": Call(
            runtime.Localizer,
            {
                "artifact": tiny_host,
                "k": "auto",
                "budget": "40ms",
                "preset": "turbo",
                "safe_k": None,
                "telemetry": None,
                "busy_profile": False,
                "backend": "cpu",
            },
        ),
        "query": Call(localizer.query, {**asked, "map": localizer.map}),
        "query of a sequence": Call(path.query, {**asked, "odometry": 0.1, "tracker": None}),
        "describe": Call(localizer.describe, {"frame": frame, "bgr": False, "k": 1, "tokens": 1}),
        "add": Call(
            localizer.add, {"frame": frame, **terms, "match": None, "bgr": False, "map": None}
        ),
        "confirm": Call(localizer.confirm, {"match": 1}),
        "track": Call(localizer.track, {"sequence": 3}),
        "open_map": Call(localizer.open_map, {"source": own}),
        "on_stale": Call(localizer.on_stale, {"callback": print, "every_s": 9.0}),
        "set map": Call(lambda map: setattr(localizer, "map", map), {"map": own}),
        "set budget": Call(lambda budget: setattr(localizer, "budget", budget), {"budget": "9ms"}),
        "set preset": Call(lambda preset: setattr(localizer, "preset", preset), {"preset": None}),
        "PlaceMap": Call(runtime.PlaceMap, {"path": own}),
        "PlaceMap.search": Call(
            localizer.map.search,
            {
                "descriptor": localizer.describe(frame),
                "k": 1.0,
                "tokens": 1.0,
                "count": 1,
                "first": 0,
                "end": None,
                "without": None,
                "near": (1, 0),
                "radius": 5.0,
                "last": 0,
                "without_s": (1.0, 2.0),
            },
        ),
        "PlaceMap.tag": Call(localizer.map.tag, {"place": 1}),
        "PlaceMap.pose": Call(localizer.map.pose, {"place": 1}),
        "PlaceMap.confirm": Call(localizer.map.confirm, {"place": 1}),
        "PlaceMap.prune": Call(localizer.map.prune, {"most": 10**6}),
        "FakeLocalizer.query": Call(fake.query, {**asked, "map": None}),
        "FakeLocalizer.query of a sequence": Call(
            fake.query, {**asked, "odometry": 0.1, "tracker": None}
        ),
        "FakeLocalizer.describe": Call(
            fake.describe, {"frame": frame, "bgr": False, "k": 1, "tokens": 1}
        ),
        "FakeLocalizer.add": Call(
            fake.add, {"frame": frame, **terms, "match": None, "bgr": False, "map": None}
        ),
        "FakeLocalizer.confirm": Call(fake.confirm, {"match": 1}),
        "FakeLocalizer.track": Call(fake.track, {"sequence": 3}),
        "FakeLocalizer.on_stale": Call(fake.on_stale, {"callback": print, "every_s": 9.0}),
        "FakeLocalizer": Call(
            runtime.FakeLocalizer, {"answers": (), "descriptor_size": 8, "k": 1.0, "tokens": 1.0}
        ),
        "MapWriter": Call(
            lambda **arguments: runtime.MapWriter(tmp_path / "made.placemap", **arguments),
            {"artifact": localizer, "kind": "int8", "bands": ((1.0, 1.0),), "pose_frame": "local"},
        ),
        "MapWriter path": Call(
            lambda **arguments: runtime.MapWriter(artifact=localizer, **arguments),
            {"path": own, "like": None},
        ),
        "MapWriter.add": Call(
            writer.add,
            {"frame": frame, "pose": (1, 2), "tag": "b", "time_s": 1e9, "bgr": False},
        ),
        "CameraFrame.of": Call(runtime.CameraFrame.of, {"pixels": frame, "pixel_format": "RGB888"}),
        "CameraFrame": Call(
            lambda **fields: localizer.describe(runtime.CameraFrame(**fields)),
            {
                "planes": (frame.reshape(96, -1),),
                "pixel_format": "RGB888",
                "width": 128,
                "height": 96,
                "yuv_range": "full",
                "yuv_matrix": "bt601",
            },
        ),
        "Budget": Call(runtime.Budget, {"power_w": 5.0}),
        "Budget.parse": Call(runtime.Budget.parse, {"text": "5W"}),
        "FedSource.feed": Call(fed.feed, {"power_w": 1.0, "battery_percent": 50.0}),
        "Sampler": Call(Sampler, {"sources": [fed], "interval_s": 1.0, "cpu_share": 0.1}),
        "stream": Call(
            tatvpr_edge.stream,
            {"source": "nowhere.mp4", "backend": None, "realtime": False},
        ),
        "Stream.read": Call(ended.read, {"timeout_s": 0.0}),
        "Picking": Call(
            mapping.Picking, {"topic": "/image", "poses_topic": "/odom", "distance_m": 1.0}
        ),
        "Picking by time": Call(mapping.Picking, {"every_s": 1.0}),
        "read_frame": Call(tatvpr_edge.read_frame, {"source": "nowhere.png"}),
        "read_artifact": Call(runtime.read_artifact, {"path": tiny_host}),
        "build_map": Call(
            tatvpr_edge.build_map,
            {
                "localizer": localizer,
                "frames": "nowhere",
                "output": tmp_path / "o.placemap",
                "poses": None,
                "pose_frame": None,
                "kind": "int8",
                "bands": None,
                "threshold": 0.5,
                "picking": None,
            },
        ),
        "merge_maps": Call(
            mapping.merge_maps, {"maps": [own, own], "output": tmp_path / "m.placemap"}
        ),
        "map_stats": Call(mapping.map_stats, {"path": own}),
        "lean_map": Call(mapping.lean_map, {"path": own}),
        "Client": Call(runtime.Client, {"path": tmp_path / "none.sock", "sequence": 1}),
        "LoopCloser": Call(
            runtime.LoopCloser, {"localizer": localizer, "agree": 5, "baseline_m": 4.0}
        ),
    }


def test_a_wrong_argument_is_an_error_of_ours(
    calls: dict[str, Call], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {name: told for name, call in calls.items() if (told := refusals(call))}
    lines = [f"{name}: {line}" for name, told in wrong.items() for line in told]
    assert not lines, "\n".join(lines)


def refused(call: Call, name: str, junk: Any) -> type | None:
    """The error that ``junk`` is told by; None where the call takes it."""
    try:
        call.of(**{**call.good, name: junk})
    except TatvprError as error:
        return type(error)
    return None


def test_the_stand_in_refuses_what_a_localizer_refuses(calls: dict[str, Call]) -> None:
    """Which maps there are, and how long their descriptors, it does not know."""
    pairs = [(name, f"FakeLocalizer.{name}") for name in calls if f"FakeLocalizer.{name}" in calls]
    assert len(pairs) == 7
    wrong = []
    for real, fake in pairs:
        for name in calls[real].good:
            for junk in JUNK:
                unknown = name == "map" or (real == "add" and isinstance(junk, np.ndarray))
                told = refused(calls[real], name, junk), refused(calls[fake], name, junk)
                if told[0] is not told[1] and not unknown:
                    wrong.append(f"{real}({name}={junk!r}): {told}")
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def client_calls(
    calls: dict[str, Call], tiny_host: Path, scene_map: Path, tmp_path: Path
) -> Iterator[dict[str, Call]]:
    """Calls of a Client, by the names of the calls of a Localizer that they are."""
    served = shutil.copy(scene_map, tmp_path / "served.placemap")
    words = ["--artifact", str(tiny_host), "--map", str(served)]
    with (
        serving(tmp_path / "s.sock", *words),
        runtime.Client(tmp_path / "s.sock") as client,
        runtime.Client(tmp_path / "s.sock", sequence=3) as path,
    ):
        theirs = {
            "query": client.query,
            "query of a sequence": path.query,
            "describe": client.describe,
            "add": client.add,
            "confirm": client.confirm,
            "set budget": lambda budget: client.set(k="auto", preset="turbo", budget=budget),
            "set preset": lambda preset: client.set(k="auto", budget="9ms", preset=preset),
            "set map": lambda map: client.set(map=map),
        }
        not_there = ("map", "tracker", "match", "k", "tokens")
        yield {
            name: Call(of, {a: v for a, v in calls[name].good.items() if a not in not_there})
            for name, of in theirs.items()
        }


def test_a_client_refuses_what_a_localizer_refuses(
    calls: dict[str, Call], client_calls: dict[str, Call]
) -> None:
    wrong = []
    for of, call in client_calls.items():
        told = refusals(call)
        wrong += [f"Client {of}: {line}" for line in told]
        for name in call.good:
            for junk in JUNK:
                if name == "frame" and isinstance(junk, np.ndarray):
                    continue  # a Localizer takes it for descriptors, which are nothing to send
                kinds = refused(calls[of], name, junk), refused(call, name, junk)
                if kinds[0] is not kinds[1]:
                    wrong.append(f"{of}({name}={junk!r}): {kinds}")
    assert not wrong, "\n".join(wrong)
