"""The bill of materials is CycloneDX, says what is shipped and what is not; no machine."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.tools import lacking
from tatvpr_edge import __version__


@pytest.mark.slow
def test_the_bill_names_what_is_shipped(project_root: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("cyclonedx_py") is None:
        lacking("cyclonedx-bom", "pip install 'tatvpr-edge[sbom]'")
    output = tmp_path / "sbom.json"
    tool = project_root / "tools" / "sbom.py"
    done = subprocess.run(
        [sys.executable, tool, "--output", output], check=True, capture_output=True, text=True
    )
    bill = json.loads(output.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    ours = bill["metadata"]["component"]
    assert (ours["name"], ours["version"]) == ("tatvpr-edge", __version__)
    components = {component["name"].lower(): component for component in bill["components"]}
    required = {n for n, component in components.items() if component["scope"] == "required"}
    assert required == {"numpy", "tatvpr-core"}, "a board needs NumPy and nothing else"
    users = {"onnx", "apache-tvm", "click", "av", "rosbags", "cyclonedds"} & components.keys()
    assert "onnx" in users and {components[name]["scope"] for name in users} == {"optional"}
    assert {components[name]["scope"] for name in ("torch", "pytest")} == {"excluded"}
    assert all(component["version"] for component in components.values())
    assert "pkg:pypi/numpy@" in components["numpy"]["purl"]
    compilers = [c for c in components.values() if c.get("group") == "toolchain"]
    assert any(p["value"] == "host" for c in compilers for p in c["properties"])
    refs = {component["bom-ref"] for component in bill["components"]} | {ours["bom-ref"]}
    for row in bill["dependencies"]:
        assert {row["ref"], *row.get("dependsOn", [])} <= refs
    for private in (str(project_root), str(Path.home()) + "/"):
        assert private == "/" or private not in output.read_text()
    assert str(len(components)) in done.stdout
