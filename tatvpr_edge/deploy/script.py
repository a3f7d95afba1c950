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
_INLINE = """here=$0
start=$here/start
# A release that lost all of itself has no such file; any other's finds the one before it.
for other in "${here%/*}"/releases/*/start; do [ -f "$start" ] || start=$other; done
"""
_RUN = """runtime=$here/runtime
whole=$({python} -I -S "{start}" "$here")
case $? in
    0) runtime=$whole{there} ;;
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


def _run(python: Sequence[str], start: str, there: str = "") -> str:
    words = " ".join(shlex.quote(word) for word in python)
    return _RUN.format(python=words, refused=REFUSED, start=start, there=there)


def release_script(python: Sequence[str]) -> str:
    """A release's ``python``, with ``python`` as words of a command."""
    return _HERE.format(root=ROOT_VARIABLE, releases=RELEASES) + _run(python, "$here/start")


def inline(python: Sequence[str]) -> str:
    """The same for ``sh -c TEXT RELEASE WORD ...``, in the folder of the release that it runs."""
    return _INLINE + _run(python, "$start", '; cd "${whole%/*}" || :')
