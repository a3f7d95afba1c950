"""Compile the TensorRT plugin library for one GPU: ``TENSORRT_INCLUDE=DIR make plugin``.

    python tools/build_plugin.py [--architecture sm_87] [--cuda 12] [--output FILE]

Needs TensorRT's and CUDA's headers (TENSORRT_INCLUDE, CUDA_INCLUDE) and g++; the kernels are
compiled by NVRTC and become part of the library. A board does the same with the sources that the
artifact carries.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from given import one_line

from tatvpr_edge.compilers.tensorrt.cubins import compile_all, source_folder
from tatvpr_edge.compilers.tensorrt.names import names_header
from tatvpr_edge.runtime.backends.tensorrt.plugin_library import compile_plugin, find_headers
from tatvpr_edge.spec.targets import check_new_folder


@one_line
def main() -> int:
    """Exit status 0 with the library's path on standard output, or 1 with one line of error."""
    parser = argparse.ArgumentParser(description="Compile the TensorRT plugin library.")
    parser.add_argument("--architecture", default="sm_87", help="sm_87 (Orin), sm_110 (Thor)")
    parser.add_argument("--cuda", type=int, choices=(12, 13), default=12)
    parser.add_argument("--output", type=Path, default="build/libtatvpr_plugin.so")
    arguments = parser.parse_args()
    output: Path = arguments.output
    check_new_folder(output.parent)  # before minutes of compiling
    headers = find_headers()
    with tempfile.TemporaryDirectory(prefix="tatvpr-plugin-") as scratch:
        folder = Path(scratch)
        for source in (source_folder() / "plugin").iterdir():
            (folder / source.name).write_bytes(source.read_bytes())
        (folder / "names.h").write_text(names_header())
        for cubin in compile_all(arguments.architecture, arguments.cuda):
            (folder / f"{cubin.source}.cubin").write_bytes(cubin.code)
        output.parent.mkdir(parents=True, exist_ok=True)
        compile_plugin(folder, folder, output, headers)
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
