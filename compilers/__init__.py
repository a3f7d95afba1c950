"""Lowering: a checked ONNX graph goes in, a per-board artifact comes out."""

import os

if __name__ != "tatvpr_edge.compilers":
    raise ImportError(
        f"this folder is the package tatvpr_edge.compilers, but it was imported as {__name__!r}: "
        "write 'from tatvpr_edge import compilers'"
    )

# ONNX Runtime would write an identifier of this machine into the home folder and send figures of
# its use to its makers, from the moment it is imported; it asks this word alone whether it may.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
