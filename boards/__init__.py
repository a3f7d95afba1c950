"""One TOML file per board, and the loader that validates it (standard library only)."""

if __name__ != "tatvpr_edge.boards":
    raise ImportError(
        f"this folder is the package tatvpr_edge.boards, but it was imported as {__name__!r}: "
        "write 'from tatvpr_edge import boards'"
    )
