"""What is sent to a board is complete: nothing in it asks for a module that stays behind."""

from __future__ import annotations

import ast
import json

import pytest

from tatvpr_edge.deploy.packed import LAUNCH_MODULES, packed, sources
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


class _Unsaid(ast.NodeTransformer):
    """Takes away statements that are strings alone."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        told = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if told else node


def meaning(text: str) -> str:
    return ast.dump(_Unsaid().visit(ast.parse(text)))


@pytest.mark.parametrize("name", sorted({*AGENT_MODULES, *LAUNCH_MODULES}))
def test_what_is_sent_is_what_was_written_so_that_a_boards_older_python_reads_it(name: str) -> None:
    """From Python 3.12 on ``ast.unparse`` writes f-strings that 3.10 and 3.11 refuse."""
    ((_, written),) = sources([name])
    ((_, sent),) = json.loads(packed([(name, written)]))
    assert meaning(sent) == meaning(written)
    lines = {line.strip() for line in written.splitlines()}
    for line in map(str.strip, sent.splitlines()):
        assert line in {"''", *lines} or any(one.startswith(line + "  #") for one in lines), line


def test_comments_and_docstrings_stay_and_strings_that_are_data_travel() -> None:
    text = (
        '"""Module."""\n\n# why\nfrom __future__ import annotations\n\n\n'
        "class A:\n    # before\n    '''Said.\n\n    # no comment'''\n\n    x = 1  # beside\n"
        '    """Of x."""\n\n\n'
        'def f(a):\n    """Alone: é."""\n\n\n'
        'DATA = """\n# kept\n\n"""  # é\nASKED = f("a#b", [\n    # inside\n\n    "c",\n])\n'
    )
    ((_, sent),) = json.loads(packed([("m", text)]))
    assert sent == (
        "''\nfrom __future__ import annotations\n"
        "class A:\n    ''\n    x = 1\n    ''\n"
        "def f(a):\n    ''\n"
        'DATA = """\n# kept\n\n"""\nASKED = f("a#b", [\n    "c",\n])\n'
    )
