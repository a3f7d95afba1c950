"""Frames of ROS bags: ROS 1's files, ROS 2's folders, ``.mcap`` and ``.db3``; ROS is not needed.

A bag is read once for the times of its images, from first to last, and once more, likewise, for the
pixels of those that were taken; only what is asked for at the moment is in memory. Bags are others'
bytes: whatever rosbags raises at them means that they are damaged.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import tempfile
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tatvpr_edge.mapping import messages
from tatvpr_edge.mapping.recordings.frames import Pose, RecordedFrame, broken
from tatvpr_edge.mapping.recordings.picking import Picker, Picking
from tatvpr_edge.mapping.recordings.track import POSE_TYPES, Track, need_poses
from tatvpr_edge.runtime.frame import Frame
from tatvpr_edge.spec.atomic import temporary_folder
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.framefiles import lists_bag, storages
from tatvpr_edge.spec.shortage import refuse_shortage
from tatvpr_edge.spec.text import printable

_LOG = logging.getLogger("tatvpr_edge")

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
#: A message's place in its bag: when it was recorded (ns), and which one of that moment it is.
_Key = tuple[int, int]
#: What a bag needs whose end is missing: its kind has a program for that.
_REMEDIES = {".bag": "rosbag reindex", ".mcap": "mcap recover", ".db3": "ros2 bag reindex"}


def bag_frames(path: Path, picking: Picking) -> list[RecordedFrame]:
    """The frames of the bag at ``path`` that ``picking`` takes, in the order of recording.

    A message that cannot be read is among them and fails when it is fetched, as a damaged picture
    of a folder does; so is what tells that the bag breaks off.

    Raises:
        DataError: no bag, no such topic, several topics of images and none named, no frame.
    """
    bag = Bag(path)
    images = bag.topic(picking.topic, IMAGE_TYPES, "images", "--topic")
    track = None
    if picking.poses_topic is not None:
        poses = bag.topic(picking.poses_topic, tuple(POSE_TYPES), "poses", "--poses-topic")
        track = _track(bag, poses)
    return _Scan(bag, images, picking, track).frames()


def _track(bag: Bag, connections: Sequence[Any]) -> Track:
    """The poses that can be read; what cannot is said."""
    track = Track(connections[0].topic, POSE_TYPES[connections[0].msgtype])
    stamped = bag.stamped(connections)
    damaged, first = 0, ""
    try:
        for key, connection, raw in bag.messages(connections):
            try:
                message = bag.parsed(connection, raw)
            except DataError as error:
                damaged, first = damaged + 1, first or str(error)
                continue
            track.add(messages.stamp_ns(message) if stamped else key[0], message)
    except DataError as error:
        _LOG.warning("%s; its poses end there", printable(error))
    if damaged:
        _LOG.warning("%s: %d poses are left out", printable(first), damaged)
    for first_ns, last_ns in track.twice_ns:
        _LOG.warning(
            "%s: the clock of %s was set back by %.1f s: images of the times that came twice have "
            "no position; a bag from before or after has (ros2 bag convert, mcap filter)",
            printable(bag.path),
            printable(track.topic),
            (last_ns - first_ns) / 1e9,
        )
    need_poses(track, bag.path)
    return track


class _Scan:
    """One pass over a bag's images, to know which are taken."""

    def __init__(
        self, bag: Bag, connections: Sequence[Any], picking: Picking, track: Track | None
    ) -> None:
        self._bag = bag
        self._connections = connections
        self._track = track
        self._picker = Picker(picking, "local" if track is None else track.frame)
        self._stamped = bag.stamped(connections)
        self._seen = self._unplaced = 0
        self._names: set[str] = set()

    def frames(self) -> list[RecordedFrame]:
        """See :func:`bag_frames`."""
        found, last_ns = [], 0
        try:
            for key, connection, raw in self._bag.messages(self._connections):
                last_ns = key[0]
                frame = self._look(key, connection, raw)
                if frame is not None:
                    found.append(frame)
        except DataError as error:
            if not found:
                raise
            found.append(self._frame(last_ns, None, broken(str(error)), " (end)"))
        topic = self._connections[0].topic
        if not found:
            why = (
                f"none of its {self._seen} images has a pose: do the times of {topic} and "
                f"{self._track.topic} overlap?"
                if self._track is not None and self._seen
                else f"{topic} holds no message"
            )
            raise DataError(f"{self._bag.path}: {why}")
        if self._unplaced:
            assert self._track is not None
            _LOG.warning(
                "%s: %d of %d images lie outside the times of %s, so they have no position%s",
                printable(self._bag.path),
                self._unplaced,
                self._seen,
                printable(self._track.topic),
                " and are left out" if self._picker.needs_poses else "",
            )
        return found

    def _look(self, key: _Key, connection: Any, raw: bytes) -> RecordedFrame | None:
        """The frame where it is taken; a message that cannot be read always is."""
        self._seen += 1
        try:
            stamp_ns = messages.stamp_ns(self._bag.parsed(connection, raw))
        except DataError as error:
            return self._frame(key[0], None, broken(str(error)))
        time_ns = stamp_ns if self._stamped else key[0]
        pose = None if self._track is None else self._track.at(time_ns)
        self._unplaced += self._track is not None and pose is None
        if not self._picker.takes(time_ns, pose):
            return None
        return self._frame(time_ns, pose, partial(self._bag.image, self._connections, key))

    def _frame(
        self,
        time_ns: int,
        pose: Pose | None,
        load: Callable[[], Callable[[], Frame]],
        mark: str = "",
    ) -> RecordedFrame:
        name = f"{time_ns // 1_000_000_000}.{time_ns % 1_000_000_000:09d}{mark}"
        while name in self._names:  # two images of one moment
            name += "'"
        self._names.add(name)
        return RecordedFrame(
            self._bag.path / name,
            name,
            load,
            time_s=time_ns / 1e9,
            pose=pose,
            pose_frame="local" if self._track is None else self._track.frame,
            poses_from="" if self._track is None else self._track.topic,
        )


class Bag:
    """A bag that is open until nobody knows it any more."""

    def __init__(self, path: Path) -> None:
        from rosbags.highlevel import AnyReader
        from rosbags.rosbag2 import reader
        from rosbags.typesys import Stores, get_typestore

        self.path = path
        self._lock = threading.Lock()
        self._passed: _Key = (-1, 0)
        #: The reader's iterator of one pass, where one is under way: it must end before the reader.
        self._cursor: list[Iterator[tuple[_Key, Any, bytes]]] = []
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        try:
            # Bags of older ROS 2 do not tell their types; those of images and poses never changed.
            reader.TemporaryDirectory = _Unpacked  # type: ignore[misc, assignment]
            known = get_typestore(Stores.ROS2_HUMBLE)
            self._reader: Any = AnyReader([_storage(path)], default_typestore=known)
            self._reader.open()
        except DataError:
            raise
        except Exception as error:
            raise _damaged(path, error) from None
        weakref.finalize(self, _close, self._reader, self._cursor)

    def topic(self, name: str | None, types: Sequence[str], what: str, option: str) -> list[Any]:
        """The connections of a topic that holds ``what``; without a name, of the only one.

        Raises:
            DataError: no such topic, one that holds something else, or several to choose from;
                it lists those that there are.
        """
        fitting = {c.topic: c for c in self._reader.connections if c.msgtype in types}
        there = ", ".join(sorted(fitting)) or "no topic"
        if name is None:
            if len(fitting) != 1:
                remedy = f": say which with {option}" if fitting else ""
                raise DataError(f"{self.path} has {what} on {there}{remedy}")
            name = next(iter(fitting))
        found = [c for c in self._reader.connections if c.topic == name]
        if not found:
            raise DataError(f"{self.path} has no topic {name}: it has {what} on {there}")
        good = [c for c in found if c.msgtype in types]
        if not good:
            raise DataError(
                f"{self.path}: {name} holds {found[0].msgtype}, no {what}: it has {what} on {there}"
            )
        return good

    def messages(
        self, connections: Sequence[Any], start_ns: int | None = None
    ) -> Generator[tuple[_Key, Any, bytes]]:
        """(key, connection, bytes) of each message, in the order of recording.

        Raises:
            DataError: the bag cannot be read further.
        """
        return _messages(self._reader, connections, start_ns, partial(_damaged, self.path))

    def stamped(self, connections: Sequence[Any]) -> bool:
        """Whether a header of the topic tells a time. Then all do: 0 is when a simulation began."""
        with contextlib.suppress(DataError), contextlib.closing(self.messages(connections)) as all_:
            for _, connection, raw in all_:
                with contextlib.suppress(DataError):
                    if messages.stamp_ns(self.parsed(connection, raw)):
                        return True
        return False

    def parsed(self, connection: Any, raw: bytes) -> Any:
        """The message.

        Raises:
            DataError: its bytes are damaged.
        """
        try:
            return self._reader.deserialize(raw, connection.msgtype)
        except Exception as error:
            refuse_shortage(error, f"a message of {self.path}")
            said = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{self.path}: a message of {connection.topic} is damaged ({said})"
            ) from None

    def image(self, connections: Sequence[Any], key: _Key) -> Callable[[], Frame]:
        """What decodes the image at ``key``. Going forward costs one pass over the bag in all.

        Raises:
            DataError: it cannot be read.
        """
        with self._lock:
            if not self._cursor or key <= self._passed:
                self._cursor[:] = [self.messages(connections, key[0])]
            for found, connection, raw in self._cursor[0]:
                self._passed = found
                if found == key:
                    return partial(messages.frame_of, self.parsed(connection, raw))
            self._cursor.clear()
        raise DataError(f"{self.path}: it changed while it was read")


def _messages(
    reader: Any,
    connections: Sequence[Any],
    start_ns: int | None,
    damaged: Callable[[Exception], DataError],
) -> Generator[tuple[_Key, Any, bytes]]:
    """See :meth:`Bag.messages`; it does not know the ``Bag``, so that a forgotten one is closed."""
    moment, number = -1, 0
    try:
        for connection, time_ns, raw in reader.messages(connections, start=start_ns):
            number = number + 1 if time_ns == moment else 0
            moment = time_ns
            yield (time_ns, number), connection, raw
    except Exception as error:
        raise damaged(error) from None


class _Unpacked(contextlib.ExitStack):
    """Where rosbags unpacks a bag that is compressed as a whole: a folder that goes with the next
    one if this process is killed, as the kernel does for want of memory."""

    def __enter__(self) -> _Unpacked:
        self.name = str(self.enter_context(temporary_folder("bag")))
        return self


def _damaged(path: Path, error: Exception) -> DataError:
    refuse_shortage(error, f"{path}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return DataError(
            f"{path} is compressed as a whole, and {error.filename or tempfile.gettempdir()} has "
            f"no room to unpack it ({error.strerror}): free some, or set TMPDIR to another folder"
        )
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    remedy = _REMEDIES.get(path.suffix.lower(), "ros2 bag reindex")
    return DataError(f"{path} is damaged, or was not closed ({said}): '{remedy}' may mend it")


def _close(reader: Any, cursor: list[Iterator[Any]]) -> None:
    cursor.clear()
    reader.close()


def _storage(path: Path) -> Path:
    """What rosbags opens: the folder of a ROS 2 bag, or its one file where the folder's list of
    files is lost."""
    if not path.is_dir() or lists_bag(path):
        return path
    files = storages(path)
    if len(files) != 1:
        raise DataError(
            f"{path} has {len(files)} files of a bag and no metadata.yaml: 'ros2 bag reindex "
            f"{path}' makes it"
        )
    return files[0]
