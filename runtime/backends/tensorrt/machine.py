"""What an engine depends on: this GPU, this TensorRT, this driver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.runtime.backends.tensorrt.engine import tensorrt_module
from tatvpr_edge.runtime.cuda.driver import Driver

#: Of a Jetson: carrier and module first, such as "nvidia,p3768-0000+p3767-0005".
_COMPATIBLE = Path("/proc/device-tree/compatible")
#: One of these names the kernel driver's release.
_RELEASE_FILES = ("/etc/nv_tegra_release", "/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Machine:
    """An engine built on one machine is used on an equal one only."""

    gpu: str
    architecture: str
    cuda: str
    driver: str
    tensorrt: str


def this_machine(driver: Driver) -> Machine:
    """The machine that runs this.

    Raises:
        ToolError: TensorRT is absent or not supported.
    """
    return Machine(
        gpu=gpu_name(driver.device_name()),
        architecture=driver.architecture(),
        cuda=driver.version(),
        driver=_release(),
        tensorrt=str(tensorrt_module().__version__),
    )


def gpu_name(device: str, compatible: Path = _COMPATIBLE) -> str:
    """``device`` and the module that it is part of, where Linux knows: the GPUs of Orin Nano, NX
    and AGX are all called "Orin", and a copied disk takes its engines from one to the other."""
    try:
        module = compatible.read_bytes().partition(b"\0")[0].decode("ascii", "replace")
    except OSError:
        return device
    return f"{device} ({module})"


def _release() -> str:
    for name in _RELEASE_FILES:
        try:
            return " ".join(Path(name).read_text(errors="replace").split("\n")[0].split())
        except OSError:
            continue
    return "unknown"
