#!/usr/bin/env python3
"""The ROS 2 node beside a camera for a minute: is it in time, is it current, does it grow?

    python tools/ros_soak.py [--seconds 60] [--hz 30] [--size 640x480] [--k 0.2] [--places 1000]

A camera and the node are processes of their own, and speak DDS on the loopback interface (needs
``tatvpr-edge[dds]``). Prints, and exits with 1 where one of the three does not hold:

- lost newest frames: images that were the newest while the node had nothing to do, and that it did
  not answer. None may be. (One that a newer image overtook while the node was busy is not lost.)
- latency: from the moment at which the camera publishes an image to the arrival of its answer in a
  third process, and describe alone, at the same pace in a process of its own just before. The 95th
  percentiles may be 5 ms apart.
- memory: the node's resident bytes, in the last third of the run less the middle third, below 1 MB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from given import one_line, real, target, tool_parser, whole, write_json

import tatvpr_edge
from soaking.growth import look
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

ROOT = Path(__file__).resolve().parent.parent
TOPIC = "/camera/image_raw"
DOMAIN = 68
ALLOWED_MS = 5.0
ALLOWED_GROWTH_MB = 1.0
#: At first the node warms up: imports, pages of the map, the pool of buffers.
WARM_S = 3.0


def paced(hz: float, seconds: float) -> Any:
    """Counts from 0, ``hz`` times a second, by the clock."""
    began = time.monotonic()
    for count in itertools.count():
        wait_s = began + count / hz - time.monotonic()
        if count / hz >= seconds:
            return
        if wait_s > 0:
            time.sleep(wait_s)
        yield count


def scenes(size: tuple[int, int], count: int = 8) -> Any:
    """Frames uint8 [count, height, width, 3] that show something."""
    width, height = size
    coarse = np.random.default_rng(3).integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return coarse.repeat(-(-height // 12), 1).repeat(-(-width // 16), 2)[:, :height, :width]


# ---- the camera's process ----


def film(arguments: argparse.Namespace) -> int:
    """Publish; then print when each image was sent, in nanoseconds since 1970."""
    from cyclonedds.domain import DomainParticipant
    from cyclonedds.pub import DataWriter
    from cyclonedds.topic import Topic

    from tatvpr_edge.ros import names
    from tatvpr_edge.ros.dds import types
    from tatvpr_edge.ros.dds.transport import SENSOR

    participant = DomainParticipant(DOMAIN)
    topic = Topic(participant, names.dds_topic(TOPIC), types.Image, qos=SENSOR)
    writer = DataWriter(participant, topic, qos=SENSOR)
    while not writer.get_matched_subscriptions():
        time.sleep(0.01)
    width, height = arguments.size
    pixels = [frame.tobytes() for frame in scenes(arguments.size)]
    sent = []
    for count in paced(arguments.hz, arguments.seconds):
        header = types.Header(types.Time(count, 0), "camera")
        data = pixels[count % len(pixels)]
        sent.append(time.time_ns())
        writer.write(types.Image(header, height, width, "rgb8", 0, 3 * width, data))
    print(json.dumps(sent), flush=True)
    time.sleep(1)  # the last image is still on its way
    return 0


# ---- figures ----


def make_map(path: Path, artifact: Path, places: int) -> None:
    """A map of random places with positions."""
    with Localizer(artifact) as localizer:
        model = localizer.artifact.manifest.model
    rows = np.random.default_rng(0).standard_normal((places, model.descriptor_size))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    poses = np.full((places, 7), np.nan)
    poses[:, :2] = np.arange(places)[:, None]
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band(1.0),))
    write_map(path, info, [make_places(info, [rows.astype(np.float32)], poses)])


def alone(arguments: argparse.Namespace) -> list[float]:
    """Milliseconds of each describe at the camera's pace, with nothing around it."""
    frames, times = scenes(arguments.size), []
    with Localizer(arguments.artifact, k=arguments.k) as localizer:
        for count in paced(arguments.hz, arguments.alone_s):
            start = time.perf_counter()
            localizer.describe(frames[count % len(frames)])
            times.append((time.perf_counter() - start) * 1e3)
    return times[len(times) // 10 :]


def watch(arguments: argparse.Namespace, place_map: Path) -> dict[str, Any]:
    """Run node and camera; what came when, and how large the node was.

    Raises:
        ToolError: the node ended, and what it said last.
    """
    from cyclonedds.core import WaitSet
    from cyclonedds.domain import DomainParticipant
    from cyclonedds.qos import Policy, Qos
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic
    from cyclonedds.util import duration

    from tatvpr_edge.ros import names
    from tatvpr_edge.ros.dds import types
    from tatvpr_edge.ros.dds.transport import unread, whole

    participant = DomainParticipant(DOMAIN)
    qos = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.History.KeepLast(1000))
    topic = Topic(participant, names.dds_topic("/place_node/match"), types.PlaceMatch)
    reader: Any = DataReader(participant, topic, qos=qos)
    waiting = WaitSet(participant)
    waiting.attach(unread(reader))
    words = ["--artifact", arguments.artifact, "--map", place_map, "--k", arguments.k]
    log = place_map.with_name("node.log")
    with log.open("w") as sink:
        node = subprocess.Popen(
            [sys.executable, "-m", "tatvpr_edge.ros", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=sink,
        )
    assert node.stdout is not None
    if not node.stdout.readline():
        node.wait()
    # A file: what a camera of minutes prints in the end is more than a pipe holds.
    printed = place_map.with_name("sent.json")
    with printed.open("w") as sink:
        camera = subprocess.Popen(
            [sys.executable, __file__, "--film", *sys.argv[1:]], stdout=sink, text=True
        )
    answers, memory = [], []
    next_look = 0.0
    try:
        while camera.poll() is None:
            if node.poll() is not None:  # nobody would take what the camera sends
                said = log.read_text().strip().splitlines()[-1:]
                raise ToolError(": ".join([f"the node ended with {node.returncode}", *said]))
            waiting.wait(duration(milliseconds=200))
            now = time.time_ns()
            answers += [(m.header.stamp.sec, now, m.latency_ms) for m in whole(reader.take(1000))]
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + 0.5
                if (seen := look(node.pid, next_look)) is not None:
                    memory.append(seen.rss_mb)
        sent = json.loads(printed.read_text())
    finally:
        camera.kill()
        camera.wait()
        node.terminate()
        node.wait(timeout=30)
        node.stdout.close()
    return {"sent": sent, "answers": answers, "memory": memory}


def lost_newest(sent: list[int], answers: list[tuple[int, int, float]]) -> list[int]:
    """Images not answered though the node was free before the next one was sent."""
    said = {number: at for number, at, _ in answers}
    lost, free = [], 0
    for number in range(len(sent)):
        if number in said:
            free = said[number]
        elif number + 1 == len(sent) or free < sent[number + 1]:
            lost.append(number)
    return lost


def judged(seen: dict[str, Any], describe: list[float], hz: float) -> dict[str, Any]:
    """The figures that are printed."""
    sent, answers = seen["sent"], seen["answers"]
    warm = [a for a in answers if a[0] >= WARM_S * hz]
    if not warm:
        raise ToolError(f"no answer to an image after {WARM_S:g} s: more --seconds may have some")
    latency = [(at - sent[number]) / 1e6 for number, at, _ in warm]
    third = len(seen["memory"]) // 3
    middle, last = seen["memory"][third : 2 * third], seen["memory"][2 * third :]
    p95 = [float(np.percentile(values, 95)) for values in (describe, latency)]
    return {
        "sent": len(sent),
        "answered": len(answers),
        "lost_newest": len(lost_newest(sent, answers)),
        "describe_p50_ms": float(np.percentile(describe, 50)),
        "describe_p95_ms": p95[0],
        "node_p95_ms": float(np.percentile([ms for _, _, ms in warm], 95)),
        "latency_p50_ms": float(np.percentile(latency, 50)),
        "latency_p95_ms": p95[1],
        "latency_max_ms": float(max(latency)),
        "above_describe_ms": p95[1] - p95[0],
        "resident_mb": float(np.median(last)),
        "growth_mb": float(np.median(last) - np.median(middle)),
    }


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return whole(16, 8192)(width), whole(16, 8192)(height)


@one_line
def main() -> int:
    parser = tool_parser(__doc__)
    parser.add_argument("--seconds", type=real(1, 86400), default=60.0)
    parser.add_argument(
        "--alone-s", type=real(1, 3600), default=15.0, help="describe alone, before"
    )
    parser.add_argument("--hz", type=real(0.1, 1000), default=30.0)
    parser.add_argument("--size", type=_size, default=(640, 480))
    parser.add_argument("--k", type=real(1e-6, 1), default=0.2)
    parser.add_argument("--places", type=whole(1), default=1000)
    parser.add_argument("--artifact", type=Path, help="instead of building micro for this machine")
    parser.add_argument("--json", type=target())
    parser.add_argument("--film", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("CYCLONEDDS_URI", f"file://{ROOT / 'ros2' / 'loopback.xml'}")
    os.environ["ROS_DOMAIN_ID"] = str(DOMAIN)
    if arguments.film:
        return film(arguments)
    with tempfile.TemporaryDirectory() as folder:
        arguments.artifact = arguments.artifact or tatvpr_edge.build(
            "host", model="micro", output=Path(folder) / "artifact"
        )
        describe = alone(arguments)
        place_map = Path(folder) / "soak.placemap"
        make_map(place_map, arguments.artifact, arguments.places)
        seen = watch(arguments, place_map)
    report = judged(seen, describe, arguments.hz)
    for name, value in report.items():
        print(f"{name:18} {value:.2f}" if isinstance(value, float) else f"{name:18} {value}")
    if arguments.json:
        write_json(arguments.json, report)
    held = (
        report["answered"] > 0
        and report["lost_newest"] == 0
        and report["above_describe_ms"] <= ALLOWED_MS
        and report["growth_mb"] < ALLOWED_GROWTH_MB
    )
    print("held" if held else "NOT held")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
