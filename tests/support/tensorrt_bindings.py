"""TensorRT's real Python bindings over a library of ours that holds nothing but their symbols.

The bindings' wheels are small and public; the library behind them cannot be had where tests run.
With the nine functions answering null, the bindings import, and their classes can be derived from.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from support.tools import lacking, require_tool

#: JetPack 6's, JetPack 7's, and the newest that the interface was written for.
VERSIONS = ("10.3.0", "10.13.0.35", "11.4.0.106")
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getPluginRegistry",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
)
_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")


def bindings(version: str) -> Path:
    """A folder for PYTHONPATH that holds ``tensorrt`` of that version (fetched once)."""
    cache = Path(os.environ.get("TATVPR_CACHE") or Path.home() / ".cache" / "tatvpr-edge-tests")
    folder = cache / f"tensorrt-{version}-py{sys.version_info[0]}{sys.version_info[1]}"
    if not (folder / "tensorrt").is_symlink():
        folder.mkdir(parents=True, exist_ok=True)
        package = f"tensorrt-cu12-bindings=={version}"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "-d", str(folder)]
        done = subprocess.run([*command, package], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:]
            lacking(f"the wheel {package}", f"pip could not fetch it: {' '.join(reason)}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
        (folder / "tensorrt").symlink_to("tensorrt_bindings")
    return folder


def stub_library(major: int, folder: Path) -> Path:
    """A folder for LD_LIBRARY_PATH with libraries of TensorRT's names and nine null functions."""
    compiler = require_tool("gcc", "gcc")
    functions = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in _SYMBOLS)
    for name in _LIBRARIES:
        file = f"lib{name}.so.{major}"
        source = folder / f"{name}.c"
        source.write_text(functions if name == _LIBRARIES[0] else "")
        command = [compiler, "-w", "-shared", "-fPIC", f"-Wl,-soname,{file}", str(source)]
        subprocess.run([*command, "-o", str(folder / file)], check=True)
    return folder
