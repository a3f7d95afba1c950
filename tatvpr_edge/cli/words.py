"""What a shell completes in the place of a board, a model, a map or an artifact."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem


def boards(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of boards, and TOML files of the user's."""
    from tatvpr_edge.boards.loader import names

    return _starting(names(), incomplete) + _files(incomplete, ".toml")


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of shipped models, and ONNX files."""
    from tatvpr_edge import zoo

    return _starting(zoo.names(), incomplete) + _files(incomplete, ".onnx")


def weights(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of shipped models, and weights files."""
    from tatvpr_edge import zoo

    return _starting(zoo.names(), incomplete) + _files(incomplete, ".safetensors")


def maps(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Map files."""
    return _files(incomplete, ".placemap")


def artifacts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders that hold an artifact, and those on the way to one."""
    return _files(incomplete, "/")


def _starting(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _files(incomplete: str, suffix: str) -> list[CompletionItem]:
    """Files of a kind, and folders, as far as ``incomplete`` is written."""
    folder, slash, start = incomplete.rpartition("/")
    try:
        entries = sorted(Path(os.path.expanduser(folder + slash or ".")).iterdir())
    except OSError:
        return []
    found = []
    for entry in entries:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
            continue
        if entry.is_dir():
            found.append(CompletionItem(f"{folder}{slash}{entry.name}/"))
        elif entry.name.endswith(suffix):
            found.append(CompletionItem(f"{folder}{slash}{entry.name}"))
    return found
