"""The train side: networks, heads, teachers, data, training, evaluation, export, shipped zoo."""

if __name__ != "tatvpr_edge.models":
    raise ImportError(
        f"this folder is the package tatvpr_edge.models, but it was imported as {__name__!r}: "
        "write 'from tatvpr_edge import models'"
    )
