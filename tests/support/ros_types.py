"""ROS 2's messages from rosbags' type store, with this project's own from their files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

#: ROS 2's texts of services that type stores leave out (package lifecycle_msgs).
_LIFECYCLE = {
    "lifecycle_msgs/srv/ChangeState_Request": "lifecycle_msgs/Transition transition",
    "lifecycle_msgs/srv/ChangeState_Response": "bool success",
    "lifecycle_msgs/srv/GetState_Request": "uint8 structure_needs_at_least_one_member",
    "lifecycle_msgs/srv/GetState_Response": "lifecycle_msgs/State current_state",
}


def typestore(distribution: str, project_root: Path) -> Any:
    """The messages of a distribution, as ``ROS2_JAZZY``. The store knows no folder but ``msg``, so
    that a service's halves are ``package/srv/msg/Name_Request`` and ``..._Response``."""
    made = get_typestore(Stores[distribution])
    folder = project_root / "ros2" / "tatvpr_edge_msgs"
    texts = dict(_LIFECYCLE)
    for file in sorted(folder.glob("msg/*.msg")):
        texts[f"tatvpr_edge_msgs/msg/{file.stem}"] = file.read_text()
    for file in sorted(folder.glob("srv/*.srv")):
        request, reply = re.split(r"^---$", file.read_text(), flags=re.M)
        texts[f"tatvpr_edge_msgs/srv/{file.stem}_Request"] = request
        texts[f"tatvpr_edge_msgs/srv/{file.stem}_Response"] = reply
    assert len(texts) == len(_LIFECYCLE) + 1 + 2 * 3
    for name, text in texts.items():
        made.register(get_types_from_msg(text, name))
    return made
