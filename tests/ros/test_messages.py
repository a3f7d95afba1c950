"""Every message on the wire is ROS 2's own, byte for byte, by another reader and writer of them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.ros_tools import require_bags, require_dds

require_dds()
require_bags()

from support.ros_types import typestore  # noqa: E402 - after they are known to be there
from tatvpr_edge.ros.dds import types  # noqa: E402

#: Fields that the middleware puts before a request or reply.
HEADER = ("client_guid", "sequence_number")
HEADER_BYTES = 16


@pytest.fixture(scope="module", params=["ROS2_HUMBLE", "ROS2_JAZZY"])
def store(request: pytest.FixtureRequest, project_root: Path) -> Any:
    """A distribution's messages, with ours from their files."""
    return typestore(request.param, project_root)


def classes() -> list[Any]:
    """Every message class of the node."""
    found = [
        value
        for value in vars(types).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    ]
    assert len(found) > 20
    return found


def ros_name(kind: Any) -> str:
    """``sensor_msgs/msg/Image`` of the DDS type ``sensor_msgs.msg.dds_.Image_``."""
    package, room, dds, name = kind.__idl_typename__.split(".")
    assert dds == "dds_" and name.endswith("_")
    return f"{package}/{room}/{name[:-1]}"


def stored_name(kind: Any) -> str:
    """The same as rosbags' type store calls it, which knows no folder but ``msg``."""
    return ros_name(kind).replace("/srv/", "/srv/msg/")


class Filler:
    """Values for every field, none like another's."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(11)

    def __call__(self, value: Any) -> Any:
        if isinstance(value, bool):
            return bool(self.rng.integers(2))
        if isinstance(value, int):
            return int(self.rng.integers(1, 100))
        if isinstance(value, float):
            return float(np.float32(self.rng.standard_normal()))
        if isinstance(value, str):
            # Lengths that do not end on a boundary: what follows has to be aligned.
            return "ä" * int(self.rng.integers(0, 6)) + "x"
        if isinstance(value, bytes):
            return self.rng.bytes(int(self.rng.integers(1, 9)))
        if isinstance(value, list):
            return [self(each) for each in value]
        return self.message(type(value))

    def message(self, kind: Any) -> Any:
        made = kind()
        for each in dataclasses.fields(made):
            setattr(made, each.name, self(getattr(made, each.name)))
        if kind is types.DiagnosticArray:
            made.status = [self.message(types.DiagnosticStatus) for _ in range(2)]
        if kind is types.DiagnosticStatus:
            made.values = [self.message(types.KeyValue) for _ in range(3)]
        return made


def plain(message: Any) -> Any:
    """Fields and values alone, whichever library holds them."""
    if dataclasses.is_dataclass(message):
        names = [each.name for each in dataclasses.fields(message)]
        return {
            name: plain(getattr(message, name))
            for name in names
            if name not in HEADER and not name.startswith("__") and not name.isupper()
        }
    if isinstance(message, np.ndarray):
        return message.tobytes() if message.dtype == np.uint8 else message.tolist()
    if isinstance(message, list):
        return [plain(each) for each in message]
    return message


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_a_message_is_read_as_ros_reads_it_and_written_as_ros_writes_it(
    store: Any, kind: Any
) -> None:
    fill = Filler()
    for _ in range(5):
        message = fill.message(kind)
        wire = message.serialize(use_version_2=False)
        before = b""
        if hasattr(message, HEADER[0]):
            before, wire = wire[4 : 4 + HEADER_BYTES], wire[:4] + wire[4 + HEADER_BYTES :]
        name = stored_name(kind)
        theirs = store.deserialize_cdr(wire, name)
        assert plain(theirs) == plain(message)
        again = bytes(store.serialize_cdr(theirs, name))
        # ROS ends a message on its last byte, rosbags on a boundary of four.
        assert again[: len(wire)] == wire and not any(again[len(wire) :])
        assert kind.deserialize(again[:4] + before + again[4:]) == message


@pytest.mark.parametrize("kind", [types.Image, types.CompressedImage])
def test_pixels_arrive_as_bytes_without_a_list_of_numbers(kind: Any) -> None:
    message = kind(data=bytes(range(256)))
    again = kind.deserialize(message.serialize())
    assert type(again.data) is bytes and again.data == message.data


def test_pixels_are_announced_as_a_sequence_of_uint8() -> None:
    """What ROS's own middleware compares with its own type before it lets two ends meet."""
    from cyclonedds.idl import IdlStruct
    from cyclonedds.idl.types import sequence, uint8

    plainly = dataclasses.make_dataclass(
        "Plain", [("format", str), ("data", sequence[uint8])], bases=(IdlStruct,)
    )
    ours = dataclasses.make_dataclass(
        "Ours",
        [("format", str), ("data", types.CompressedImage.__annotations__["data"])],
        bases=(IdlStruct,),
    )

    def announced(kind: Any) -> Any:
        return kind.__idl__.get_type_mapping().identifier_object_pair_minimal[0].type_object

    assert announced(ours) == announced(plainly)


def test_levels_and_transitions_have_ros_numbers(store: Any) -> None:
    from tatvpr_edge.ros.node import TRANSITIONS, State

    status = store.types["diagnostic_msgs/msg/DiagnosticStatus"]
    for level in ("OK", "WARN", "ERROR", "STALE"):
        assert getattr(types.DiagnosticStatus, level) == getattr(status, level)
    known = store.types["lifecycle_msgs/msg/Transition"]
    for label, (number, _, _) in TRANSITIONS.items():
        name = "UNCONFIGURED_SHUTDOWN" if label == "shutdown" else label.upper()
        assert getattr(known, f"TRANSITION_{name}") == number
    for state in State:
        number = getattr(store.types["lifecycle_msgs/msg/State"], f"PRIMARY_STATE_{state.name}")
        assert number == state


def test_no_file_of_our_package_is_without_a_class(project_root: Path) -> None:
    folder = project_root / "ros2" / "tatvpr_edge_msgs"
    listed = set(re.findall(r'"(\w+/\w+\.(?:msg|srv))"', (folder / "CMakeLists.txt").read_text()))
    files = {
        path.relative_to(folder).as_posix()
        for kind in ("msg", "srv")
        for path in folder.glob(f"{kind}/*")
    }
    assert listed == files
    ours = {ros_name(kind) for kind in classes() if ros_name(kind).startswith("tatvpr_edge_msgs")}
    expected = {f"tatvpr_edge_msgs/msg/{Path(f).stem}" for f in files if f.endswith(".msg")}
    for file in files:
        if file.endswith(".srv"):
            expected |= {
                f"tatvpr_edge_msgs/srv/{Path(file).stem}_{end}" for end in ("Request", "Response")
            }
    assert ours == expected
