"""Compile every CUDA kernel for every GPU of the boards and print a table: no GPU is needed.

    python tools/cubin_report.py

The figures are the compiler's: registers and spills a thread, static shared memory a block, and
the size of the cubin. They say nothing about speed.
"""

from __future__ import annotations

import sys

from given import one_line, tool_parser

from tatvpr_edge.compilers.tensorrt.cubins import TARGETS, compile_all


@one_line
def main() -> int:
    """Print the table; exit status 1 where a compiler is missing or a kernel is refused."""
    tool_parser(__doc__).parse_args()
    print("| GPU | CUDA | kernel | registers | spilled bytes | shared bytes | cubin bytes |")
    print("|---|---|---|---|---|---|---|")
    for architecture, major in TARGETS:
        for cubin in compile_all(architecture, major):
            for kernel in cubin.kernels:
                spilled = kernel.spill_store_bytes + kernel.spill_load_bytes
                print(
                    f"| {architecture} | {cubin.cuda} | {kernel.name} | {kernel.registers} | "
                    f"{spilled} | {kernel.shared_bytes} | {len(cubin.code)} |"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
