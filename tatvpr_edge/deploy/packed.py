"""Modules as text: what a board gets to run before, or beside, any release of its own.

The agent travels so (:mod:`tatvpr_edge.deploy.session`), and each release's ``start``, which
chooses the runtime (:mod:`tatvpr_edge.runtime.launch`).
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import accumulate

#: What reads releases and judges whom to trust, in the order in which they import each other.
TRUST_MODULES = (
    "tatvpr_edge.spec.errors",
    "tatvpr_edge.spec.text",
    "tatvpr_edge.spec.mounts",
    "tatvpr_edge.spec.formats",
    "tatvpr_edge.spec.operators",
    "tatvpr_edge.spec.fields",
    "tatvpr_edge.spec.manifest",
    "tatvpr_edge.spec.atomic",
    "tatvpr_edge.spec.sealed",
    "tatvpr_edge.spec.artifact",
    "tatvpr_edge.runtime.deployed",
    "tatvpr_edge.runtime.private",
    "tatvpr_edge.runtime.table",
    "tatvpr_edge.runtime.whole",
    "tatvpr_edge.runtime.trust",
    "tatvpr_edge.runtime.signature",
    "tatvpr_edge.runtime.signed_release",
)
#: What ``runtime.launch`` needs.
LAUNCH_MODULES = (*TRUST_MODULES, "tatvpr_edge.runtime.launch")
#: Runs (name, text) of modules one after the other, as if they had been imported.
LOAD = """
for name, text in modules:
    parent = ""
    for part in name.split("."):
        full = parent + "." + part if parent else part
        if full not in sys.modules:
            module = types.ModuleType(full)
            if full == name:
                module.__package__ = parent
            else:
                module.__path__ = []
            sys.modules[full] = module
            if parent:
                setattr(sys.modules[parent], part, module)
        parent = full
    exec(compile(text, name, "exec"), sys.modules[name].__dict__)
"""
_BEFORE_STATEMENTS = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT}
_START = """# Chooses the runtime for this release's programs; `python` beside it asks.
# Modules of tatvpr-edge: see tatvpr_edge/runtime/launch.py there.
import hashlib, json, sys, types
PACKED = {packed!r}
if hashlib.sha256(PACKED.encode("ascii")).hexdigest() != {digest!r}:
    sys.exit("this release's start file is damaged: deploy again")
modules = json.loads(PACKED)
{load}
sys.exit(sys.modules["tatvpr_edge.runtime.launch"].main(sys.argv[1:]))
"""


def sources(names: Iterable[str]) -> list[tuple[str, str]]:
    """(name, source) of modules of this package."""
    modules = []
    for name in names:
        package, _, leaf = name.rpartition(".")
        source = resources.files(package).joinpath(leaf + ".py").read_text(encoding="utf-8")
        modules.append((name, source))
    return modules


def packed(modules: Sequence[tuple[str, str]]) -> str:
    """JSON of these modules, without comments and docstrings; ASCII."""
    return json.dumps([(name, _bare(text)) for name, text in modules])


def start_file() -> bytes:
    """A release's ``start``."""
    text = packed(sources(LAUNCH_MODULES))
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()
    return _START.format(packed=text, digest=digest, load=LOAD).encode("ascii")


@functools.lru_cache(maxsize=64)
def _bare(text: str) -> str:
    """A module without comments, docstrings and empty lines: a second deploy sends little but the
    agent. All else stays as it was written, for Pythons as old as a board's may be: what
    ``ast.unparse`` of a newer one writes, they need not read."""
    begins = list(accumulate(map(len, io.StringIO(text)), initial=0))  # of each line
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    for place in range(len(tokens) - 2, -1, -1):  # from the end, so that what lies before stays
        token, after = tokens[place].type, tokens[place + 1].type
        (row, column), (end, width) = tokens[place].start, tokens[place].end
        line, first, last = begins[row - 1], begins[row - 1] + column, begins[end - 1] + width
        if token in (tokenize.COMMENT, tokenize.NL) and not text[line:first].strip():
            text = text[:line] + text[begins[row] :]
        elif token == tokenize.COMMENT:
            text = text[:first].rstrip() + text[last:]
        elif (token, after) == (tokenize.STRING, tokenize.NEWLINE) and (
            place == 0 or tokens[place - 1].type in _BEFORE_STATEMENTS
        ):
            text = text[:first] + "''" + text[last:]
    return text
