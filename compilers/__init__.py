"""Lowering: a checked ONNX graph goes in, a per-board artifact comes out."""

if __name__ != "tatvpr_edge.compilers":
    raise ImportError(
        f"this folder is the package tatvpr_edge.compilers, but it was imported as {__name__!r}: "
        "write 'from tatvpr_edge import compilers'"
    )
