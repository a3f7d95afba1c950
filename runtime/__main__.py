"""The board's commands, without click: ``python -m tatvpr_edge.runtime COMMAND``.

A command's ``main`` gives its exit status and raises what is refused, which is one line and exit
status 1 here; wrong usage ends with 2. Everything is imported where an interrupt is one line, too.
"""

from __future__ import annotations

import sys

_COMMANDS = {
    "query": "where was a frame taken",
    "map-add": "add frames to a place map",
    "power": "the power sensors of this board",
    "serve": "keep a Localizer warm and answer queries over a Unix socket",
    "finish": "build the TensorRT engine of an artifact on its board",
    "verify": "check an artifact's signature, hashes and golden vectors",
    "profile": "measure latency and energy of an artifact for each k",
}


def _usage() -> str:
    lines = [f"  {name:8} {summary}" for name, summary in _COMMANDS.items()]
    return "usage: python -m tatvpr_edge.runtime COMMAND ...\n\n" + "\n".join(lines)


def main(argv: list[str]) -> int:
    """Run a command of the board; the exit status (128 and a signal's number: ended by it)."""
    try:
        from contextlib import nullcontext

        from tatvpr_edge.spec.endings import heeded, interrupted, tell
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    # A service heeds signals itself once it serves; one that is ended while it loads has ended well
    # for systemd where the signal itself did it.
    with nullcontext() if argv[:1] == ["serve"] else heeded():
        try:
            return _main(argv)
        except KeyboardInterrupt:
            said, status = interrupted()
            tell(f"error: {said}")
            return status


def _main(argv: list[str]) -> int:
    from tatvpr_edge.runtime.commandline import refused
    from tatvpr_edge.spec.endings import no_more_output, tell
    from tatvpr_edge.spec.errors import TatvprError
    from tatvpr_edge.spec.shortage import ran_out, shortage
    from tatvpr_edge.spec.standard_streams import open_missing

    open_missing()
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of our output went away (head, less): not an error, and nothing to say.
        no_more_output(1)
        return 0
    except TatvprError as error:
        return refused(error)
    except Exception as error:
        if ran_out(error):
            tell(f"error: {shortage(_shown(argv[0]))}")
        elif isinstance(error, ImportError) and "numpy" in str(error):
            # Missing, or one whose own libraries are: that text is a page, its last line the cause.
            tell(
                f"error: NumPy of {sys.executable} cannot be imported ("
                f"{str(error).strip().splitlines()[-1]}): install python3-numpy, or what it lacks"
            )
        elif isinstance(error, OSError):
            refused(error)
            try:
                sys.stdout.flush()
            except OSError:  # what we print goes to a full disk, say
                no_more_output(1)
        else:
            raise
        return 1


def _shown(command: str) -> str:
    return f"'python -m tatvpr_edge.runtime {command}'"


def _run(argv: list[str]) -> int:
    import importlib

    from tatvpr_edge.spec.shortage import room_to_start
    from tatvpr_edge.spec.text import printable

    if argv and argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if not argv:
        print(_usage(), file=sys.stderr)
        return 2
    if argv[0] not in _COMMANDS:
        known = ", ".join(_COMMANDS)
        print(f"error: there is no command {printable(argv[0])}: {known}", file=sys.stderr)
        return 2
    room_to_start(_shown(argv[0]))
    module = importlib.import_module(f"tatvpr_edge.runtime.{argv[0].replace('-', '_')}")
    status: int = module.main(argv[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
