"""What runs on the device: Localizer, place map, governor, telemetry, artifact reader.

Needs NumPy and the standard library only."""

if __name__ != "tatvpr_edge.runtime":
    raise ImportError(
        f"this folder is the package tatvpr_edge.runtime, but it was imported as {__name__!r}: "
        "write 'from tatvpr_edge import runtime'"
    )
