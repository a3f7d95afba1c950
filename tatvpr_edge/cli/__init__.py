"""The command line: ``tatvpr-edge COMMAND``. Each command is a file of this folder.

A command's file is imported when the command runs, not before, so that ``tatvpr-edge --help`` and
the light commands do not wait for compilers. A file is named as its command and holds ``command``.

Output: results on standard output, progress on standard error. ``--json`` prints one JSON document
and nothing else. Errors are one line on standard error; exit status 1, 2 for wrong usage, 128 and
the number of the signal that ended it; a traceback only with ``--debug``.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing has it, whose import takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence

#: Every command and its one line, in the order in which a newcomer meets them.
COMMANDS = {
    "demo": "Build, map and query with the shipped model and frames; a table and a picture.",
    "doctor": "What this machine has and lacks for each job, with the remedy.",
    "boards": "List the boards, or show one board's limits and verification.",
    "models": "List the models, or show one model's sizes, recall and licence.",
    "build": "Lower an ONNX model to an artifact for a board.",
    "verify": "Check an artifact's signature, hashes and golden vectors.",
    "map": "Make, extend or describe a place map.",
    "query": "Where was this frame taken?",
    "watch": "Where is this camera? Live, from a device, an address, a video or a folder.",
    "describe": "Descriptors of a folder of frames, for an index of your own.",
    "profile": "Measure latency and energy for each k.",
    "power": "Show the power sensors found, live.",
    "deploy": "Send an artifact to a board over SSH, atomically.",
    "status": "What a board runs, and what it could go back to.",
    "rollback": "Go back to the release before, on a board.",
    "keys": "Make, list and trust signing keys.",
    "train": "Train or distil a model.",
    "evaluate": "Recall for each k, on two folders of yours or on a data set.",
    "finetune": "Train the shipped model on frames of your own; a report before and after.",
    "export": "Export a checkpoint to ONNX.",
    "completion": "Print what makes a shell complete commands, boards, models and maps.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status (0, 1 for an error, 2 for wrong usage, 128 and the number of
    a signal: 130 of Ctrl-C, 143 of SIGTERM, 129 where its terminal was closed)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from tatvpr_edge.spec.endings import heeded, interrupted, tell
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    with heeded():
        try:
            from tatvpr_edge.spec.standard_streams import open_missing

            open_missing()
            from tatvpr_edge.cli.app import run
        except ModuleNotFoundError as error:
            tell(
                f"error: the command line needs {error.name}: pip install 'tatvpr-edge[cli]' "
                "(on a board, use python -m tatvpr_edge.runtime)"
            )
            return 1
        except KeyboardInterrupt:  # importing takes a second on a board
            said, status = interrupted()
            tell(f"error: {said}")
            return status
        return run(arguments)
