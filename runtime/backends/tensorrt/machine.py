"""What an engine depends on: this GPU, this TensorRT, this driver."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tatvpr_edge.runtime.backends.tensorrt.engine import tensorrt_module
from tatvpr_edge.runtime.cuda.driver import Driver

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

    def to_dict(self) -> dict[str, str]:
        """Plain values, ready for JSON."""
        return asdict(self)


def this_machine(driver: Driver) -> Machine:
    """The machine that runs this.

    Raises:
        ToolError: TensorRT is absent or not supported.
    """
    return Machine(
        gpu=driver.device_name(),
        architecture=driver.architecture(),
        cuda=driver.version(),
        driver=_release(),
        tensorrt=str(tensorrt_module().__version__),
    )


def _release() -> str:
    for name in _RELEASE_FILES:
        try:
            return " ".join(Path(name).read_text(errors="replace").split("\n")[0].split())
        except OSError:
            continue
    return "unknown"
