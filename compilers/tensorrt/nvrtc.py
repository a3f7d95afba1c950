"""NVRTC in a process of its own: ``python -I nvrtc.py``, with nothing but the standard library.

In: a JSON object on standard input: ``library`` (path of libnvrtc), ``sources`` (paths of ``.cu``
files) and ``options`` (compiler options). Out: one JSON object on standard output: ``version``
("12.6"), and for each source ``name``, ``log`` and ``code`` (base64; null where the source was
refused). Run by :mod:`tatvpr_edge.compilers.tensorrt.cubins`.

Two releases of NVRTC, torch and TVM each bring an LLVM: a compiler that falls over takes its own
process with it, and neither a build nor another compiler.
"""

from __future__ import annotations

import base64
import ctypes
import json
import sys
from pathlib import Path
from typing import Any


class NvrtcError(Exception):
    """A call of NVRTC failed, and not because of a source."""


def _check(lib: ctypes.CDLL, result: int, doing: str) -> None:
    if result:
        lib.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise NvrtcError(f"NVRTC failed {doing}: {lib.nvrtcGetErrorString(result).decode()}")


def _version(lib: ctypes.CDLL) -> str:
    high, low = ctypes.c_int(), ctypes.c_int()
    _check(lib, lib.nvrtcVersion(ctypes.byref(high), ctypes.byref(low)), "asking for its version")
    return f"{high.value}.{low.value}"


def _loaded(library: str) -> ctypes.CDLL:
    """NVRTC, with what it calls by name loaded already: 13.0 does not find it beside itself."""
    for beside in sorted(Path(library).parent.glob("libnvrtc-builtins.so.*")):
        ctypes.CDLL(str(beside))
    return ctypes.CDLL(library)


def _log(lib: ctypes.CDLL, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _check(lib, lib.nvrtcGetProgramLogSize(program, ctypes.byref(size)), "reading its log")
    buffer = ctypes.create_string_buffer(size.value)
    _check(lib, lib.nvrtcGetProgramLog(program, buffer), "reading its log")
    return buffer.value.decode(errors="replace")


def _compile(lib: ctypes.CDLL, source: str, options: list[str]) -> dict[str, Any]:
    program = ctypes.c_void_p()
    with open(source, "rb") as file:
        text = file.read()
    name = source.rpartition("/")[2]
    made = lib.nvrtcCreateProgram(ctypes.byref(program), text, name.encode(), 0, None, None)
    _check(lib, made, f"opening {name}")
    try:
        raw = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        if lib.nvrtcCompileProgram(program, len(options), raw):
            return {"name": name, "log": _log(lib, program), "code": None}
        size = ctypes.c_size_t()
        _check(lib, lib.nvrtcGetCUBINSize(program, ctypes.byref(size)), "sizing the cubin")
        code = ctypes.create_string_buffer(size.value)
        _check(lib, lib.nvrtcGetCUBIN(program, code), "reading the cubin")
        packed = base64.b64encode(code.raw).decode()
        return {"name": name, "log": _log(lib, program), "code": packed}
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


def main() -> int:
    """Do the job on standard input; exit status 1 and a line where NVRTC itself failed."""
    job = json.load(sys.stdin)
    try:
        lib = _loaded(job["library"])
        made = [_compile(lib, source, job["options"]) for source in job["sources"]]
        json.dump({"version": _version(lib), "made": made}, sys.stdout)
    except (NvrtcError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
