"""The node and its camera as processes that speak DDS to each other, as robots' programs do."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from support.ros_tools import require_bags, require_dds

require_dds()

from cyclonedds.builtin import (  # noqa: E402 - after it is known to be there
    BuiltinDataReader,
    BuiltinTopicDcpsPublication,
    BuiltinTopicDcpsSubscription,
)
from cyclonedds.domain import DomainParticipant  # noqa: E402
from cyclonedds.qos import Policy  # noqa: E402

from support import interrupts, ros_dds  # noqa: E402
from support.ros import APART_M  # noqa: E402
from support.ros_dds import Listener  # noqa: E402
from tatvpr_edge.ros import Parameters  # noqa: E402
from tatvpr_edge.ros.__main__ import main  # noqa: E402
from tatvpr_edge.ros.dds import types  # noqa: E402
from tatvpr_edge.ros.dds.services import ServiceClient  # noqa: E402
from tatvpr_edge.ros.dds.transport import LATCHED, RELIABLE, DdsTransport  # noqa: E402
from tatvpr_edge.spec.errors import DeployError  # noqa: E402

Frames = NDArray[np.uint8]
RAW = "/camera/image_raw"


@pytest.fixture(scope="module", autouse=True)
def loopback() -> Iterator[None]:
    """DDS of this file's processes, on the loopback interface alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CYCLONEDDS_URI", ros_dds.URI)
        patch.setenv("ROS_DOMAIN_ID", str(ros_dds.DOMAIN))
        yield


@pytest.fixture(scope="module")
def participant(loopback: None) -> Any:
    """This process on the network."""
    return DomainParticipant(ros_dds.DOMAIN)


@pytest.fixture(scope="module")
def film(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the camera sees: the scenes, as large as a camera's frames."""
    path = tmp_path_factory.mktemp("film") / "frames.npy"
    np.save(path, frames.repeat(5, axis=1).repeat(5, axis=2))
    return path


@pytest.fixture
def words(tiny_host: Path, own_map: Path) -> list[str]:
    """Options of a node over that map."""
    return ["--artifact", str(tiny_host), "--map", str(own_map), "--k", "1.0"]


def matches(participant: Any, qos: Any = LATCHED) -> Listener:
    """A listener to the node's answers."""
    return Listener(participant, "/place_node/match", types.PlaceMatch, qos)


def test_a_camera_comes_dies_and_returns(participant: Any, film: Path, words: list[str]) -> None:
    said = matches(participant)
    health = Listener(participant, "/diagnostics", types.DiagnosticArray, RELIABLE)
    poses = Listener(participant, "/place_node/pose", types.PoseWithCovarianceStamped, RELIABLE)
    options = [*words, "--stale-s", "0.3", "--diagnostics-hz", "10"]
    with ros_dds.running_node(*options):
        # No camera yet: the node waits, and says so.
        health.next(lambda array: "nobody publishes it" in array.status[0].message)

        with ros_dds.camera(film):
            stamps = []
            for _ in range(45):
                match = said.next()
                second = match.header.stamp.sec
                stamps.append(second)
                assert match.place == second % 8 and match.accepted, match
                assert match.header.frame_id == "camera"
            assert stamps == sorted(set(stamps))
            pose = poses.next(lambda each: each.pose.pose.position.x > 0)
            assert pose.pose.pose.position.x % APART_M == 0 and pose.header.frame_id == "map"
            assert np.isfinite(pose.pose.covariance).all()
            status = health.next(lambda array: array.status[0].level == 0).status[0]
            assert dict((v.key, v.value) for v in status.values)["publishers"] == "1"

        # The camera was killed in the middle of things.
        health.next(lambda array: array.status[0].level == 3)
        health.next(lambda array: "nobody publishes it" in array.status[0].message)
        # Who comes later gets the last answer, though nothing is said any more.
        late = matches(participant).next()
        assert late.header.stamp.sec >= stamps[-1]

        with ros_dds.camera(film, first=100_000):
            back = said.next(lambda match: match.header.stamp.sec >= 100_000)
            assert back.place == back.header.stamp.sec % 8
            health.next(lambda array: array.status[0].level == 0)


def test_the_newest_image_wins_while_the_node_is_slow(
    participant: Any, frames: Frames, words: list[str]
) -> None:
    """A camera far faster than any node: what is answered is never older than one answer ago."""
    said = matches(participant)
    writer = ros_dds.publisher(participant, RAW, types.Image)
    with ros_dds.running_node(*words):
        said.answer(writer, ros_dds.image(frames[0], 1))
        for burst in range(5):
            last = 1000 * (burst + 1)
            # Small, so that no operating system's buffer of datagrams overflows.
            for second in range(last - 39, last + 1):
                writer.write(ros_dds.image(frames[second % 8, ::4, ::4], second))
            answered = [said.next()]
            while answered[-1].header.stamp.sec != last:
                answered.append(said.next())
            stamps = [match.header.stamp.sec for match in answered]
            stamps = [stamp for stamp in stamps if stamp > 1]  # the first image, shown again
            assert stamps == sorted(set(stamps))
            said.silence(0.1)


def test_images_that_nobody_had_time_for_are_never_given(participant: Any, frames: Frames) -> None:
    transport = DdsTransport(participant, Parameters(image_topic="/busy"), "busy_node")
    writer = ros_dds.publisher(participant, "/busy", types.Image)
    ros_dds.wait_for(transport.cameras)
    assert transport.next_image(0.1) is None
    for last in (20, 40):
        for second in range(last - 19, last + 1):  # within a process they are there on return
            writer.write(ros_dds.image(frames[0], second))
        assert transport.next_image(ros_dds.WAIT_S).header.stamp.sec == last
        assert transport.next_image(0.1) is None
    del writer
    ros_dds.wait_for(lambda: not transport.cameras())
    assert transport.next_image(0.1) is None  # that it went away is no image


def test_topics_types_and_qos_are_as_ros_programs_expect(
    participant: Any, words: list[str]
) -> None:
    published = BuiltinDataReader(participant, BuiltinTopicDcpsPublication)
    subscribed = BuiltinDataReader(participant, BuiltinTopicDcpsSubscription)
    moved = ["--sequence", "5", "--odometry-topic", "/odom"]
    with ros_dds.running_node(*words, "--node", "seer", *moved):
        found: dict[str, Any] = {}

        def all_there() -> bool:
            for reader in (published, subscribed):
                found.update((each.topic_name, each) for each in reader.take(100))
            return len(set(found) & set(expected)) == len(expected)

        sensor = (Policy.Reliability.BestEffort, Policy.Durability.Volatile)
        latched = (Policy.Reliability.Reliable, Policy.Durability.TransientLocal)
        reliable = (Policy.Reliability.Reliable, Policy.Durability.Volatile)
        ours = "tatvpr_edge_msgs::srv::dds_::"
        expected = {
            "rt/camera/image_raw": ("sensor_msgs::msg::dds_::Image_", sensor),
            "rt/odom": ("nav_msgs::msg::dds_::Odometry_", sensor),
            "rt/seer/match": ("tatvpr_edge_msgs::msg::dds_::PlaceMatch_", latched),
            "rt/seer/pose": ("geometry_msgs::msg::dds_::PoseWithCovarianceStamped_", reliable),
            "rt/diagnostics": ("diagnostic_msgs::msg::dds_::DiagnosticArray_", reliable),
            "rq/seer/add_placeRequest": (f"{ours}AddPlace_Request_", reliable),
            "rr/seer/add_placeReply": (f"{ours}AddPlace_Response_", reliable),
            "rq/seer/save_mapRequest": (f"{ours}SaveMap_Request_", reliable),
            "rr/seer/save_mapReply": (f"{ours}SaveMap_Response_", reliable),
            "rq/seer/set_kRequest": (f"{ours}SetK_Request_", reliable),
            "rr/seer/set_kReply": (f"{ours}SetK_Response_", reliable),
            "rq/seer/change_stateRequest": (
                "lifecycle_msgs::srv::dds_::ChangeState_Request_",
                reliable,
            ),
            "rr/seer/get_stateReply": ("lifecycle_msgs::srv::dds_::GetState_Response_", reliable),
        }
        ros_dds.wait_for(all_there)
    for name, (kind, qos) in expected.items():
        assert found[name].type_name == kind
        assert all(policy in found[name].qos for policy in qos), name


def test_services_over_dds(
    participant: Any, frames: Frames, strangers: Frames, own_map: Path, words: list[str]
) -> None:
    def client(service: str) -> ServiceClient:
        return ServiceClient(participant, "place_node", service)

    said = matches(participant)
    writer = ros_dds.publisher(participant, RAW, types.Image)
    with ros_dds.running_node(*words, "--no-autostart") as process:
        state, change = client("get_state"), client("change_state")
        assert state.call().current_state.label == "unconfigured"
        for transition, after in (("configure", "inactive"), ("activate", "active")):
            assert change.call(transition=types.Transition(label=transition)).success
            assert state.call().current_state.label == after
        assert not change.call(transition=types.Transition(id=1)).success

        assert not said.answer(writer, ros_dds.image(strangers[0], 9)).accepted
        pose = types.Pose(position=types.Point(x=50.0))
        added = client("add_place").call(has_pose=True, pose=pose, tag="gate")
        assert added.success and added.place == 8, added
        match = said.answer(writer, ros_dds.image(strangers[0], 10))
        assert (match.place, match.tag, match.pose.position.x) == (8, "gate", 50.0)

        saved = client("save_map").call(name="saved.placemap")
        assert saved.success and Path(saved.path) == own_map.with_name("saved.placemap")
        assert not client("save_map").call(name="../saved.placemap").success

        # Two clients of one service: each gets the answer to its own question.
        replies: dict[str, list[Any]] = {"0.5": [], "9": []}
        asking = [client("set_k") for _ in replies]

        def ask(asker: ServiceClient, k: str) -> None:
            for _ in range(20):
                replies[k].append(asker.call(k=k, timeout_s=ros_dds.WAIT_S))

        threads = [
            threading.Thread(target=ask, args=pair) for pair in zip(asking, replies, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [reply.success for reply in replies["0.5"]] == [True] * 20
        assert [reply.success for reply in replies["9"]] == [False] * 20
        assert all("k is 9" in reply.message for reply in replies["9"])
        assert said.answer(writer, ros_dds.image(frames[1], 11)).k == pytest.approx(0.5)

        assert change.call(transition=types.Transition(label="shutdown")).success
        assert process.wait(timeout=30) == 0


def test_services_that_change_things_can_be_left_out(participant: Any, words: list[str]) -> None:
    with ros_dds.running_node(*words, "--no-services"):
        assert ServiceClient(participant, "place_node", "get_state").call()
        with pytest.raises(DeployError, match="no service /place_node/set_k"):
            ServiceClient(participant, "place_node", "set_k").call(0.5, k="0.2")


def test_a_call_that_waits_says_for_what(
    participant: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["call", "get_state", "--node", "nobody", "--timeout", "1.5"]) == 1
    waits, refused = capsys.readouterr().err.splitlines()
    service = f"the service /nobody/get_state on ROS domain {ros_dds.DOMAIN}"
    assert waits == f"waiting up to 1.5 s for a node with {service} ..."
    assert refused.startswith("error: no service /nobody/get_state")
    with ros_dds.running_node(*words) as process:
        told: list[str] = []
        client = ServiceClient(participant, "place_node", "get_state", told.append)
        client.call(ros_dds.WAIT_S)
        told.clear()
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # every thread of it stands still
        try:
            with pytest.raises(DeployError, match="did not answer within 2"):
                client.call(2.5)
        finally:
            process.send_signal(signal.SIGCONT)
        (line,) = told
        assert line.startswith("/place_node/get_state was asked: waiting up to ")


def test_ctrl_c_ends_a_call_that_waits_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with interrupts.heeded():
        threading.Timer(1.0, signal.raise_signal, [signal.SIGINT]).start()
        assert main(["call", "get_state", "--node", "nobody", "--timeout", "60"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_compressed_camera(participant: Any, frames: Frames, words: list[str]) -> None:
    said = matches(participant)
    writer = ros_dds.publisher(participant, f"{RAW}/compressed", types.CompressedImage)
    file = io.BytesIO()
    Image.fromarray(frames[6]).save(file, "PNG")
    with ros_dds.running_node(*words, "--image-transport", "compressed"):
        header = types.Header(types.Time(3, 0), "camera")
        shown = types.CompressedImage(header, "rgb8; png compressed", file.getvalue())
        match = said.answer(writer, shown)
        assert match.place == 6 and match.accepted


def test_a_recorded_bag_is_answered(
    participant: Any, frames: Frames, words: list[str], tmp_path: Path
) -> None:
    require_bags()
    from rosbags.rosbag2 import Reader, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    made = store.types["sensor_msgs/msg/Image"]
    header, stamp = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    with Writer(tmp_path / "run", version=9) as bag:
        connection = bag.add_connection(RAW, made.__msgtype__, typestore=store)
        for index, frame in enumerate(frames):
            recorded = made(
                header(stamp(1000 + index, 0), "front"),
                *frame.shape[:2],
                "rgb8",
                0,
                3 * frame.shape[1],
                frame.reshape(-1),
            )
            data = store.serialize_cdr(recorded, made.__msgtype__)
            bag.write(connection, (1000 + index) * 10**9, data)

    said = matches(participant)
    writer = ros_dds.publisher(participant, RAW, types.Image)
    with ros_dds.running_node(*words), Reader(tmp_path / "run") as bag:
        answers = []
        for connection, _, data in bag.messages():
            assert connection.topic == RAW
            answers.append(said.answer(writer, types.Image.deserialize(bytes(data))))
    assert [answer.place for answer in answers] == list(range(8))
    assert [answer.header.stamp.sec for answer in answers] == list(range(1000, 1008))
    assert {answer.header.frame_id for answer in answers} == {"front"}


def test_odometry_comes_over_the_network(
    participant: Any, frames: Frames, words: list[str]
) -> None:
    """A warning says that there is none, and is gone once there is."""
    said = matches(participant)
    health = Listener(participant, "/diagnostics", types.DiagnosticArray, RELIABLE)
    writer = ros_dds.publisher(participant, RAW, types.Image)
    wheels = ros_dds.publisher(participant, "/odom", types.Odometry)
    moved = ["--sequence", "3", "--odometry-topic", "/odom", "--diagnostics-hz", "20"]
    with ros_dds.running_node(*words, *moved):
        said.answer(writer, ros_dds.image(frames[1], 1))
        health.next(lambda array: "no odometry of /odom" in array.status[0].message)
        ros_dds.wait_for(wheels.get_matched_subscriptions)
        pose = types.Pose(types.Point(2.0, 0.0, 0.0), types.Quaternion())
        stamp = types.Header(types.Time(2, 100_000_000), "odom")
        wheels.write(types.Odometry(stamp, "base_link", types.PoseWithCovariance(pose)))
        said.answer(writer, ros_dds.image(frames[2], 2))
        health.next(lambda array: "no odometry" not in array.status[0].message)


# ---- the command ----


Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``python -m tatvpr_edge.ros WORDS``, in this process; what it prints."""

    def command(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        done = main(list(words))
        shown = capsys.readouterr()
        assert done == status, shown.err + shown.out
        if not status:
            return shown.out
        assert "Traceback" not in shown.err
        return shown.out + shown.err.splitlines()[-1] if shown.err else shown.out

    return command


def process(*words: str, code: str, status: int = 0, **environment: str) -> Any:
    """``code`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == status, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


MAIN = "import sys; from tatvpr_edge.ros.__main__ import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--k", "lots"], "parameter k"),
        (["--map", "/nowhere.placemap"], "nowhere.placemap"),
        (["--node", "place-node"], "node name"),
        (["--node", "place node"], "node name"),
        (["--image-topic", "/place_node/match"], "images and match are one topic"),
    ],
)
def test_what_is_wrong_is_one_line(
    run: Run, words: list[str], options: list[str], text: str
) -> None:
    said = run(*words, *options, status=1)
    assert said.startswith("error: ") and text in said


def test_a_domain_that_is_none_is_told(
    run: Run, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "900")
    assert "ROS_DOMAIN_ID is '900'" in run(*words, status=1)


def test_a_network_that_is_down_is_told(words: list[str]) -> None:
    away = "<CycloneDDS><Domain><General><Interfaces><NetworkInterface name='none9'/>"
    uri = f"{away}</Interfaces></General></Domain></CycloneDDS>"
    done = process(*words, code=MAIN, status=1, CYCLONEDDS_URI=uri)
    assert "does CYCLONEDDS_URI name an interface" in done.stderr.splitlines()[-1]


def test_without_cyclonedds_it_says_what_to_install(words: list[str]) -> None:
    code = f"import sys; sys.modules['cyclonedds'] = None; {MAIN}"
    done = process(*words, code=code, status=1)
    assert "pip install 'tatvpr-edge[dds]'" in done.stderr


def test_a_board_needs_numpy_and_cyclonedds_alone(
    participant: Any, frames: Frames, words: list[str]
) -> None:
    absent = "('click', 'rich', 'PIL', 'cv2', 'av', 'rosbags', 'rclpy')"
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); {MAIN}"
    said = matches(participant)
    writer = ros_dds.publisher(participant, RAW, types.Image)
    with ros_dds.running_node(*words, code=code):
        assert said.answer(writer, ros_dds.image(frames[5], 21)).place == 5


def test_a_node_is_asked_from_the_shell(run: Run, words: list[str]) -> None:
    with ros_dds.running_node(*words):
        assert run("call", "get_state").endswith("label='active')\n")
        assert run("call", "set_k", "k=0.5") == "success: True\nmessage: k 0.5\n"
        refused = run("call", "add_place", "has_pose=true", "pose=1,2,0,0,0,0,1", status=1)
        assert "no image came yet" in refused
        for wrong, remedy in (
            (["set_k", "speed=9"], "k=..., budget=..."),
            (["set_k", "k"], "k=..., budget=..."),
            (["set_k"], "message: k is '': a fraction"),
            (["add_place", "has_pose=yes"], "true or false"),
            (["add_place", "pose=1,2"], "seven numbers"),
            (["add_place", "pose=1,2,0,0,0,0,1"], "without has_pose=true"),
            (["add_place", "novelty=0.9"], "without only_if_new=true"),
            (["get_state", "--node", "''"], "is no ROS name"),
            (["get_state", "--timeout", "nan"], "seconds, above 0"),
            (["fly"], "one of add_place"),
        ):
            said = run("call", *wrong, status=1)
            assert remedy in said and "Traceback" not in said, wrong
        misspelt = run("call", "set_k", "speed=9", status=1)
        assert misspelt == "error: 'speed=9' is no field of it: write k=..., budget=..."
        assert "it takes no fields" in run("call", "get_state", "k=1", status=1)
    assert "is the node running" in run("call", "get_state", "--timeout", "0.5", status=1)
