"""ROS 2's messages as cyclonedds declares them: same names, same order, same bytes on the wire.

Whether they are ROS's own is checked against ``rosbags``' type store and the ``.msg`` and ``.srv``
files of ``ros2/tatvpr_edge_msgs`` (tests/ros). ``byte`` is declared uint8, as ROS's own middleware
announces it.
"""

# Annotations are read when a type is announced, so they are no strings here.
from dataclasses import dataclass, field
from typing import Annotated, Any

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import (
    array,
    float32,
    float64,
    int32,
    int64,
    sequence,
    uint8,
    uint32,
    uint64,
)


class Octets(sequence):  # type: ignore[misc]
    """``uint8[]`` that is read and written as ``bytes``.

    cyclonedds turns a sequence of uint8 into a list of int, 8 ms for an image of 640 x 480 on a PC,
    and knows bytes too, but cannot announce their type. This is announced as the one and stored as
    the other: being equal to ``bytes`` is how cyclonedds finds the reader of bytes.
    """

    def __init__(self) -> None:
        super().__init__(uint8)

    def __eq__(self, other: object) -> bool:
        return other is bytes or bool(super().__eq__(other))

    def __hash__(self) -> int:
        return hash(bytes)


_OCTETS = Octets()


# ---- builtin_interfaces, std_msgs ----


@dataclass
class Time(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
class Header(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


# ---- sensor_msgs ----


@dataclass
class Image(IdlStruct, typename="sensor_msgs.msg.dds_.Image_"):
    header: Header = field(default_factory=Header)
    height: uint32 = 0
    width: uint32 = 0
    encoding: str = ""
    is_bigendian: uint8 = 0
    step: uint32 = 0
    data: Annotated[bytes, _OCTETS] = b""


@dataclass
class CompressedImage(IdlStruct, typename="sensor_msgs.msg.dds_.CompressedImage_"):
    header: Header = field(default_factory=Header)
    format: str = ""
    data: Annotated[bytes, _OCTETS] = b""


# ---- geometry_msgs ----


@dataclass
class Point(IdlStruct, typename="geometry_msgs.msg.dds_.Point_"):
    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0


@dataclass
class Quaternion(IdlStruct, typename="geometry_msgs.msg.dds_.Quaternion_"):
    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0
    w: float64 = 1.0


@dataclass
class Pose(IdlStruct, typename="geometry_msgs.msg.dds_.Pose_"):
    position: Point = field(default_factory=Point)
    orientation: Quaternion = field(default_factory=Quaternion)


@dataclass
class PoseWithCovariance(IdlStruct, typename="geometry_msgs.msg.dds_.PoseWithCovariance_"):
    pose: Pose = field(default_factory=Pose)
    covariance: Annotated[list[float], array(float64, 36)] = field(
        default_factory=lambda: [0.0] * 36
    )


@dataclass
class PoseWithCovarianceStamped(
    IdlStruct, typename="geometry_msgs.msg.dds_.PoseWithCovarianceStamped_"
):
    header: Header = field(default_factory=Header)
    pose: PoseWithCovariance = field(default_factory=PoseWithCovariance)


@dataclass
class Vector3(IdlStruct, typename="geometry_msgs.msg.dds_.Vector3_"):
    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0


@dataclass
class Twist(IdlStruct, typename="geometry_msgs.msg.dds_.Twist_"):
    linear: Vector3 = field(default_factory=Vector3)
    angular: Vector3 = field(default_factory=Vector3)


@dataclass
class TwistWithCovariance(IdlStruct, typename="geometry_msgs.msg.dds_.TwistWithCovariance_"):
    twist: Twist = field(default_factory=Twist)
    covariance: Annotated[list[float], array(float64, 36)] = field(
        default_factory=lambda: [0.0] * 36
    )


# ---- nav_msgs ----


@dataclass
class Odometry(IdlStruct, typename="nav_msgs.msg.dds_.Odometry_"):
    header: Header = field(default_factory=Header)
    child_frame_id: str = ""
    pose: PoseWithCovariance = field(default_factory=PoseWithCovariance)
    twist: TwistWithCovariance = field(default_factory=TwistWithCovariance)


# ---- diagnostic_msgs ----


@dataclass
class KeyValue(IdlStruct, typename="diagnostic_msgs.msg.dds_.KeyValue_"):
    key: str = ""
    value: str = ""


@dataclass
class DiagnosticStatus(IdlStruct, typename="diagnostic_msgs.msg.dds_.DiagnosticStatus_"):
    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3

    level: uint8 = 0
    name: str = ""
    message: str = ""
    hardware_id: str = ""
    values: Annotated[list[KeyValue], sequence(KeyValue)] = field(default_factory=list)


@dataclass
class DiagnosticArray(IdlStruct, typename="diagnostic_msgs.msg.dds_.DiagnosticArray_"):
    header: Header = field(default_factory=Header)
    status: Annotated[list[DiagnosticStatus], sequence(DiagnosticStatus)] = field(
        default_factory=list
    )


# ---- tatvpr_edge_msgs ----


@dataclass
class PlaceMatch(IdlStruct, typename="tatvpr_edge_msgs.msg.dds_.PlaceMatch_"):
    header: Header = field(default_factory=Header)
    place: int32 = -1
    tag: str = ""
    score: float32 = 0.0
    judged: bool = False
    accepted: bool = False
    confidence: float32 = 0.0
    margin: float32 = 0.0
    reason: str = ""
    state: str = ""
    frames: uint32 = 0
    has_pose: bool = False
    pose: Pose = field(default_factory=Pose)
    pose_frame: str = ""
    k: float32 = 0.0
    tokens: float32 = 0.0
    latency_ms: float32 = 0.0


# ---- services: rmw_cyclonedds_cpp puts who asks, and which of their requests it is, in front ----


@dataclass
class AddPlaceRequest(IdlStruct, typename="tatvpr_edge_msgs.srv.dds_.AddPlace_Request_"):
    client_guid: uint64 = 0
    sequence_number: int64 = 0
    has_pose: bool = False
    pose: Pose = field(default_factory=Pose)
    tag: str = ""
    only_if_new: bool = False
    novelty: float32 = 0.0


@dataclass
class AddPlaceReply(IdlStruct, typename="tatvpr_edge_msgs.srv.dds_.AddPlace_Response_"):
    client_guid: uint64 = 0
    sequence_number: int64 = 0
    success: bool = False
    message: str = ""
    place: int32 = -1


@dataclass
class SaveMapRequest(IdlStruct, typename="tatvpr_edge_msgs.srv.dds_.SaveMap_Request_"):
    client_guid: uint64 = 0
    sequence_number: int64 = 0
    name: str = ""


@dataclass
class SaveMapReply(IdlStruct, typename="tatvpr_edge_msgs.srv.dds_.SaveMap_Response_"):
    client_guid: uint64 = 0
    sequence_number: int64 = 0
    success: bool = False
    message: str = ""
    path: str = ""


@dataclass
class SetKRequest(IdlStruct, typename="tatvpr_edge_msgs.srv.dds_.SetK_Request_"):
    client_guid: uint64 = 0
    sequence_number: int64 = 0
    k: str = ""
    budget: str = ""


@dataclass
class SetKReply(IdlStruct, typename="tatvpr_edge_msgs.srv.dds_.SetK_Response_"):
    client_guid: uint64 = 0
    sequence_number: int64 = 0
    success: bool = False
    message: str = ""


# ---- lifecycle_msgs ----


@dataclass
class Transition(IdlStruct, typename="lifecycle_msgs.msg.dds_.Transition_"):
    id: uint8 = 0
    label: str = ""


@dataclass
class LifecycleState(IdlStruct, typename="lifecycle_msgs.msg.dds_.State_"):
    id: uint8 = 0
    label: str = ""


@dataclass
class ChangeStateRequest(IdlStruct, typename="lifecycle_msgs.srv.dds_.ChangeState_Request_"):
    client_guid: uint64 = 0
    sequence_number: int64 = 0
    transition: Transition = field(default_factory=Transition)


@dataclass
class ChangeStateReply(IdlStruct, typename="lifecycle_msgs.srv.dds_.ChangeState_Response_"):
    client_guid: uint64 = 0
    sequence_number: int64 = 0
    success: bool = False


@dataclass
class GetStateRequest(IdlStruct, typename="lifecycle_msgs.srv.dds_.GetState_Request_"):
    client_guid: uint64 = 0
    sequence_number: int64 = 0
    # ROS gives a structure without members this one.
    structure_needs_at_least_one_member: uint8 = 0


@dataclass
class GetStateReply(IdlStruct, typename="lifecycle_msgs.srv.dds_.GetState_Response_"):
    client_guid: uint64 = 0
    sequence_number: int64 = 0
    current_state: LifecycleState = field(default_factory=LifecycleState)


#: Service: (request, reply), by the service's name below the node's.
SERVICES: dict[str, tuple[Any, Any]] = {
    "add_place": (AddPlaceRequest, AddPlaceReply),
    "save_map": (SaveMapRequest, SaveMapReply),
    "set_k": (SetKRequest, SetKReply),
    "change_state": (ChangeStateRequest, ChangeStateReply),
    "get_state": (GetStateRequest, GetStateReply),
}
