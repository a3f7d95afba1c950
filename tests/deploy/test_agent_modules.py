"""What is sent to a board is complete: nothing in it asks for a module that stays behind."""

from __future__ import annotations

import ast

import pytest

from tatvpr_edge.deploy.packed import LAUNCH_MODULES, sources
from tatvpr_edge.deploy.session import AGENT_MODULES


def imported(name: str, text: str, sent: tuple[str, ...]) -> set[str]:
    """Modules of this project that ``text``, the module ``name``, imports when it starts."""
    package = name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            inside = {f"{base}.{alias.name}" for alias in node.names} & set(sent)
            found |= inside or {base}
    return {module for module in found if module.startswith("tatvpr_edge")}


@pytest.mark.parametrize("names", [AGENT_MODULES, LAUNCH_MODULES], ids=["agent", "start"])
def test_every_module_that_is_sent_finds_what_it_imports_already_there(
    names: tuple[str, ...],
) -> None:
    there: set[str] = set()
    for name, text in sources(names):
        assert imported(name, text, names) <= there, name
        there.add(name)
