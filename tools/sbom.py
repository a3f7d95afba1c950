"""The software bill of materials (CycloneDX 1.6, JSON): ``python tools/sbom.py [--output FILE]``.

Python packages are listed by ``cyclonedx-py`` from the environment that runs this, each with the
scope in which the product needs it: "required" on a board and everywhere, "optional" where a user
asks for an extra (``build``, ``video`` ...), "excluded" for training, tests and benchmarks, of
which nothing is shipped. Beside them: the engine in C, and the compilers of the boards that this
machine has. Equal environments give equal bytes. What is written was validated against the schema.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

try:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
except ImportError:
    sys.exit("error: cyclonedx is missing: pip install 'tatvpr-edge[sbom]', or run make sbom")
from given import one_line, tool_parser
from packaging.requirements import Requirement

from tatvpr_edge import __version__
from tatvpr_edge.boards.loader import load, names
from tatvpr_edge.compilers.core_sources import core_folder
from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.errors import ToolError

PROJECT = Path(__file__).resolve().parent.parent
OUTPUT = PROJECT / "build" / "sbom.json"
#: Extras of training, benchmarks, examples and tests: all others are for robots and their hosts.
NOT_SHIPPED = {
    *("train", "teacher", "render", "plot", "bench", "slam"),
    *("test", "fuzz", "sbom", "check"),
}
_NAME = re.compile(r"[-_.]+")
_ABI = re.compile(r"^#define TATVPR_ABI (\d+)u?\b", re.MULTILINE)
_TIMEOUT_S = 600


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return _NAME.sub("-", name).lower()


def of_python() -> dict[str, Any]:
    """The bill of this environment's packages, as the tool writes it."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable]
    options = ["--pyproject", str(PROJECT / "pyproject.toml"), "--mc-type", "library"]
    # The whole bill is validated in the end: this part of it need not be.
    options += ["--sv", "1.6", "--no-validate", "--output-reproducible", "-o", "-"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise ToolError(f"cyclonedx-py failed: {done.stderr.strip().splitlines()[-1:]}")
    bill: dict[str, Any] = json.loads(done.stdout)
    return bill


def needed(extras: tuple[str, ...]) -> set[str]:
    """Packages that the product and these extras of it ask for, and what those ask for in turn.

    Args:
        extras: names in ``pyproject.toml``; none: the product alone.
    """
    found: set[str] = set()
    waiting = [("tatvpr-edge", extras)]
    seen = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        found.add(normal(name))
        try:
            asked = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # not in this environment, so not in the bill
            continue
        for text in asked:
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in (wanted or ("",))):
                waiting.append((requirement.name, tuple(sorted(requirement.extras))))
    return found


def of_engine() -> dict[str, Any]:
    """The engine in C, which every artifact carries compiled."""
    folder = core_folder()
    abi = _ABI.search((folder / "include" / "tatvpr.h").read_text())
    if abi is None:
        raise ToolError("tatvpr.h states no TATVPR_ABI")
    return {
        "type": "library",
        "bom-ref": "tatvpr-core",
        "name": "tatvpr-core",
        "version": __version__,
        "description": "The engine, C99: compiled into every artifact, needs a C library alone",
        "scope": "required",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "properties": [{"name": "tatvpr-edge:abi", "value": abi[1]}],
    }


def of_toolchains() -> list[dict[str, Any]]:
    """The boards' C compilers that this machine has. (zig is a Python package.)"""
    boards: dict[str, list[str]] = {}
    for name in names():
        boards.setdefault(load(name).toolchain.gcc, []).append(name)
    found = []
    for program in sorted(boards):
        if shutil.which(program) is None:
            continue
        done = subprocess.run(
            [program, "-dumpfullversion"], capture_output=True, text=True, timeout=60
        )
        found.append(
            {
                "type": "application",
                "bom-ref": f"toolchain:{program}",
                "group": "toolchain",
                "name": program,
                "version": done.stdout.strip(),
                "scope": "excluded",
                "properties": [
                    {"name": "tatvpr-edge:compiles-for", "value": board}
                    for board in boards[program]
                ],
            }
        )
    return found


def make_bill() -> str:
    """The whole bill, validated.

    Raises:
        ToolError: the tool failed, or what was made is no CycloneDX.
    """
    bill = of_python()
    extras = metadata.metadata("tatvpr-edge").get_all("Provides-Extra", [])
    runtime, shipped = needed(()), needed(tuple(sorted({*extras} - NOT_SHIPPED)))
    for component in bill["components"]:
        name = normal(component["name"])
        known = "required" if name in runtime else "optional" if name in shipped else "excluded"
        component["scope"] = known
    bill["metadata"]["component"]["version"] = __version__
    bill["components"] += [of_engine(), *of_toolchains()]
    root = bill["metadata"]["component"]["bom-ref"]
    for row in bill["dependencies"]:
        if row["ref"] == root:
            row.setdefault("dependsOn", []).append("tatvpr-core")
    bill["dependencies"].append({"ref": "tatvpr-core"})
    text = json.dumps(bill, indent=2, sort_keys=True) + "\n"
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if fault is not None:
        raise ToolError(f"the bill is no CycloneDX 1.6: {fault!r}")
    return text


@one_line
def main() -> int:
    """Write the bill and say what is in it."""
    parser = tool_parser(__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output: Path = parser.parse_args().output
    output.parent.mkdir(parents=True, exist_ok=True)
    text = make_bill()
    with replacing(output) as sink:
        sink.write(text.encode())
    scopes = [component["scope"] for component in json.loads(text)["components"]]
    counts = ", ".join(f"{scopes.count(s)} {s}" for s in ("required", "optional", "excluded"))
    print(f"{output}: {len(scopes)} components ({counts})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
