"""Real DDS on the loopback interface: the node, a camera and listeners, each a process or here.

Run as a program it is the camera: ``python ros_dds.py FRAMES.npy HZ [FIRST_STAMP]`` publishes the
frames in turn, for ever; the second of each image's stamp counts them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cyclonedds.core import WaitSet
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from tatvpr_edge.ros import names
from tatvpr_edge.ros.dds import types
from tatvpr_edge.ros.dds.transport import SENSOR, unread, whole

DOMAIN = 67
_LOOPBACK = Path(__file__).resolve().parent.parent.parent / "ros2" / "loopback.xml"
#: No network is needed; the tag keeps test runs beside this one out, and a camera's death is
#: noticed soon.
URI = f"""file://{_LOOPBACK},<Domain><Discovery>
  <Tag>{secrets.token_hex(8)}</Tag>
  <LeaseDuration>1500ms</LeaseDuration><SPDPInterval>300ms</SPDPInterval>
</Discovery></Domain>"""
WAIT_S = 60.0


class Listener:
    """Everything on one topic, in order."""

    def __init__(self, participant: DomainParticipant, topic: str, kind: Any, qos: Any) -> None:
        self.reader: Any = DataReader(
            participant, Topic(participant, names.dds_topic(topic), kind, qos=qos), qos=qos
        )
        self._waiting = WaitSet(participant)
        self._waiting.attach(unread(self.reader))

    def next(
        self,
        wanted: Callable[[Any], bool] = lambda message: True,
        asking: Callable[[], object] = lambda: None,
    ) -> Any:
        """The next message that is as wanted; ``asking`` is called now and each second."""
        end, again, seen = time.monotonic() + WAIT_S, 0.0, None
        while time.monotonic() < end:
            if time.monotonic() >= again:
                again = time.monotonic() + 1
                asking()
            self._waiting.wait(duration(seconds=0.2))
            for seen in whole(self.reader.take(1)):
                if wanted(seen):
                    return seen
        raise AssertionError(f"nothing as wanted within {WAIT_S:g} s; the last was {seen}")

    def answer(self, writer: Any, message: Any) -> Any:
        """What the node says to an image; shown again while it is not heard, as best effort may
        lose one, and what is sent before the node knows the camera."""
        stamp = message.header.stamp
        return self.next(lambda said: said.header.stamp == stamp, lambda: writer.write(message))

    def silence(self, seconds: float) -> None:
        """Nothing comes in so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._waiting.wait(duration(seconds=0.1))
            assert not whole(self.reader.take(1))


def image(frame: Any, second: int) -> Any:
    """``sensor_msgs/Image`` on the wire."""
    height, width = frame.shape[:2]
    header = types.Header(types.Time(second, 0), "camera")
    return types.Image(header, height, width, "rgb8", 0, 3 * width, frame.tobytes())


def publisher(participant: DomainParticipant, topic: str, kind: Any) -> Any:
    """A camera's writer."""
    made = Topic(participant, names.dds_topic(topic), kind, qos=SENSOR)
    return DataWriter(participant, made, qos=SENSOR)


def wait_for(condition: Callable[[], Any]) -> None:
    """Until it is true."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def running_node(*words: str, code: str = "") -> Iterator[subprocess.Popen[str]]:
    """``python -m tatvpr_edge.ros``, or ``code`` that runs it, in a process of its own, once it
    says what it is."""
    program = ["-c", code] if code else ["-m", "tatvpr_edge.ros"]
    with subprocess.Popen(
        [sys.executable, *program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert " is " in line, process.stderr.read()
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


@contextlib.contextmanager
def camera(frames: Path, hz: float = 30.0, first: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """A camera in a process of its own; killed at the end, as a camera dies."""
    words = [sys.executable, __file__, str(frames), str(hz), str(first)]
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": paths}) as process:
        try:
            yield process
        finally:
            process.kill()


def _film(frames: Any, hz: float, first: int) -> None:
    participant = DomainParticipant(DOMAIN)
    writer = publisher(participant, "/camera/image_raw", types.Image)
    began = time.monotonic()
    for count in itertools.count():
        second = first + count
        writer.write(image(frames[second % len(frames)], second))
        time.sleep(max(0.0, began + (count + 1) / hz - time.monotonic()))


if __name__ == "__main__":
    _film(np.load(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
