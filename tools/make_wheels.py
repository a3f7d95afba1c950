"""Platform wheels: one file that answers, ``pip install`` it and ``Localizer().query(frame)``.

    python tools/make_wheels.py [--output wheels] [--machine x86_64] [--machine aarch64]
    python tools/make_wheels.py --plain    (pure Python, no compiled model, any processor)

Builds the plain wheel of the project, then adds to a copy for each processor what cannot be
compiled on a board: ``micro`` for it, and the map of the shipped places (a map is of a model, not
of a processor: it is made here, once). The copy is tagged with the glibc that its library asks for.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from given import new_folder, one_line, tool_parser

from tatvpr_edge import build
from tatvpr_edge.cli.demo import DEFAULT_KS, make_demo_map
from tatvpr_edge.compilers.elf import read_elf
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.zoo import ZOO

PROJECT = Path(__file__).resolve().parent.parent
#: The board whose library runs on every processor of the machine: its kernels choose by themselves.
BOARDS = {"x86_64": "host", "aarch64": "raspberry-pi-4"}
EMBEDDED = "tatvpr_edge/runtime/embedded"
#: Earliest date of a zip file: equal sources give equal wheels.
EPOCH = (1980, 1, 1, 0, 0, 0)
#: Nothing is downloaded; an older setuptools than pyproject.toml asks for is told by its name.
HERE = ("--no-build-isolation", "--check-build-dependencies")
NOT_PACKED = (".*", "build", "dist", "wheels", "runs", "tests", "*.egg-info", "__pycache__")
Members = dict[str, tuple[bytes, bool]]


def plain_wheel(folder: Path) -> Path:
    """The project's own wheel, pure Python, built from a copy: setuptools leaves what it once
    collected in the tree that it builds, and would pack a file that was removed since."""
    copy = folder / "source"
    shutil.copytree(PROJECT, copy, symlinks=True, ignore=shutil.ignore_patterns(*NOT_PACKED))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q"]
    done = subprocess.run(
        [*command, *("--no-deps", *HERE), "-w", str(folder), str(copy)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ToolError(f"pip could not build the project's wheel: {last}")
    return next(folder.glob("tatvpr_edge-*-py3-none-any.whl"))


def read_wheel(path: Path) -> Members:
    """Every file of a wheel: name -> (content, executable)."""
    with zipfile.ZipFile(path) as wheel:
        return {
            info.filename: (wheel.read(info), bool(info.external_attr >> 16 & 0o111))
            for info in wheel.infolist()
            if not info.is_dir()
        }


def embedded(artifact: Path, place_map: Path) -> Iterator[tuple[str, bytes]]:
    """What is added to a wheel: the artifact's own files and the map."""
    whole = read_artifact(artifact)
    for member in ("manifest.json", *(entry.path for entry in whole.manifest.files)):
        yield f"{EMBEDDED}/artifact/{member}", (whole.root / member).read_bytes()
    yield f"{EMBEDDED}/demo.placemap", place_map.read_bytes()


def write_wheel(plain: Path, added: dict[str, bytes], tag: str, output: Path) -> Path:
    """Write ``plain`` with ``added`` files and another tag; a wheel's RECORD lists all of it."""
    members = read_wheel(plain)
    members.update({name: (data, False) for name, data in added.items()})
    meta = next(name.split("/")[0] for name in members if name.endswith(".dist-info/WHEEL"))
    about = members[f"{meta}/WHEEL"][0].decode()
    about = about.replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
    about = about.replace("Tag: py3-none-any", f"Tag: py3-none-{tag}")
    members[f"{meta}/WHEEL"] = (about.encode(), False)
    record = f"{meta}/RECORD"
    del members[record]
    lines = [_record_line(name, data) for name, (data, _) in sorted(members.items())]
    members[record] = ("\n".join([*lines, f"{record},,", ""]).encode(), False)
    output.mkdir(parents=True, exist_ok=True)
    path = output / plain.name.replace("py3-none-any", f"py3-none-{tag}")
    temporary = path.with_suffix(".tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in sorted(members, key=lambda name: (name.startswith(meta), name)):
            data, executable = members[name]
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = (0o100755 if executable else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(info, data)
    temporary.replace(path)
    return path


def _record_line(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


def wheel_tag(artifact: Path) -> str:
    """The platform tag that the artifact's library needs, such as manylinux_2_34_x86_64."""
    whole = read_artifact(artifact)
    library = read_elf(whole.path(whole.manifest.code.path))
    return f"manylinux_{library.glibc[0]}_{library.glibc[1]}_{library.machine}"


def make_wheels(output: Path, machines: list[str]) -> list[Path]:
    """Write a wheel for each of ``machines`` and return their paths.

    Raises:
        TatvprError: a compiler is missing, or the project does not build.
    """
    made = []
    with tempfile.TemporaryDirectory(prefix="tatvpr-wheels-") as name:
        folder = Path(name)
        print("the plain wheel ...", file=sys.stderr)
        plain = plain_wheel(folder)
        artifacts = {}
        for machine in {platform.machine(), *machines}:
            board = "host" if machine == platform.machine() else BOARDS[machine]
            print(f"micro for {machine} ({board}) ...", file=sys.stderr)
            artifacts[machine] = build(board, model="micro", output=folder / machine)
        ks = [float(k) for k in DEFAULT_KS.split(",")]
        place_map = folder / "demo.placemap"
        here = str(artifacts[platform.machine()])
        make_demo_map(here, ZOO / "places" / "gallery", ks, place_map)
        for machine in machines:
            added = dict(embedded(artifacts[machine], place_map))
            made.append(write_wheel(plain, added, wheel_tag(artifacts[machine]), output))
    return made


@one_line
def main() -> int:
    """Make the wheels and print their paths and sizes."""
    parser = tool_parser(__doc__)
    parser.add_argument("--output", type=new_folder, default=PROJECT / "wheels")
    parser.add_argument("--machine", action="append", choices=sorted(BOARDS))
    parser.add_argument("--plain", action="store_true", help="the pure Python wheel alone")
    arguments = parser.parse_args()
    if arguments.plain:
        arguments.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="tatvpr-wheels-") as name:
            made = [Path(shutil.copy(plain_wheel(Path(name)), arguments.output))]
    else:
        made = make_wheels(arguments.output, arguments.machine or sorted(BOARDS))
    for path in made:
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
