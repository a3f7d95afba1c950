"""The few lines of shell that run Python with a release's runtime, after ``start`` was asked which.

Each release holds them as its ``python``; the unit holds them itself, so that the service comes up
beside a script that rotted. Runs on the board as part of the agent as well (standard library only).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tatvpr_edge.runtime.deployed import REFUSED, RELEASES, ROOT_VARIABLE

_HERE = """#!/bin/sh
# Runs Python with the runtime of this release: ./python your_program.py
here=$(CDPATH= cd -P -- "$(dirname -- "$0")" && pwd -P) || exit 1
# A runtime of the board's own does not lie below the root that it is to answer from.
{root}="${{{root}:-${{here%/{releases}/*}}}}"
export {root}
"""
_RUN = """runtime=$here/runtime
whole=$({python} -I -S "$here/start" "$here")
case $? in
    0) runtime=$whole ;;
    {refused}) exit 1 ;; # none is trusted; any other fault is one of `start` itself: as without it
esac
if [ -d "$runtime" ]; then
    PYTHONPATH="$runtime${{PYTHONPATH:+:$PYTHONPATH}}"
    export PYTHONPATH
fi
PYTHONDONTWRITEBYTECODE=1 # a release holds what was sent and nothing else
export PYTHONDONTWRITEBYTECODE
exec {python} "$@"
"""


def _run(python: Sequence[str]) -> str:
    words = " ".join(shlex.quote(word) for word in python)
    return _RUN.format(python=words, refused=REFUSED)


def release_script(python: Sequence[str]) -> str:
    """A release's ``python``, with ``python`` as words of a command."""
    return _HERE.format(root=ROOT_VARIABLE, releases=RELEASES) + _run(python)


def inline(python: Sequence[str]) -> str:
    """The same for ``sh -c TEXT RELEASE WORD ...``."""
    return "here=$0\n" + _run(python)
