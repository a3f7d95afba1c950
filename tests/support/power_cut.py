"""What a disk may hold after a power cut, from a record of the calls that were made.

The model keeps two versions of everything: what a running system sees, and what is certain to be on
the medium. A file's bytes become certain with its sync, a folder's names with the folder's sync;
until then each of them may or may not be there after a cut.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The ways in which unsynced calls are lost: all of them; file contents only; any of them.
CUTS = ("unsynced lost", "contents lost", "some lost")


@dataclass(eq=False)
class Node:
    """A file, a link or a folder: as seen, and as certain."""

    kind: str
    data: bytes = b""
    certain_data: bytes = b""
    executable: bool = False
    names: dict[str, Node] = field(default_factory=dict)
    certain_names: dict[str, Node] = field(default_factory=dict)

    def settle(self) -> None:
        """Everything seen becomes certain, also below."""
        self.certain_data = self.data
        self.certain_names = dict(self.names)
        for node in self.names.values():
            node.settle()


def load(folder: Path) -> Node:
    """The tree at ``folder``, all of it certain."""
    root = Node("folder")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink():
            root.names[path.name] = Node("link", os.readlink(path).encode())
        elif path.is_dir():
            root.names[path.name] = load(path)
        elif path.is_file():
            executable = os.access(path, os.X_OK)
            root.names[path.name] = Node("file", path.read_bytes(), executable=executable)
    root.settle()
    return root


class Model:
    """Applies recorded calls to the tree that lay at ``root`` before them."""

    def __init__(self, root: str, tree: Node) -> None:
        self.root = root
        self.tree = tree
        self.open: dict[int, Node] = {}

    def _find(self, path: str) -> Node:
        node = self.tree
        for name in self._names(path):
            node = node.names[name]
        return node

    def _names(self, path: str) -> list[str]:
        inside = os.path.relpath(path, self.root)
        return [] if inside == "." else inside.split("/")

    def _outside(self, path: str) -> bool:
        return os.path.relpath(path, self.root).startswith("..")

    def _parent(self, path: str) -> tuple[Node, str]:
        folder, name = os.path.split(path)
        return self._find(folder), name

    def apply(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        """One recorded call."""
        if isinstance(arguments[-1], str) and self._outside(arguments[-1]):
            return  # the folder that the root lies in
        if name == "mkdir":
            if arguments[0] != self.root:
                parent, leaf = self._parent(arguments[0])
                parent.names[leaf] = Node("folder")
        elif name == "create":
            parent, leaf = self._parent(arguments[0])
            executable = len(arguments) > 1 and arguments[1]
            self.open[result] = parent.names[leaf] = Node("file", executable=executable)
        elif name == "reopen":
            self.open[result] = self._find(arguments[0])
            self.open[result].data = self.open[result].data[: arguments[1]]
        elif name == "write":
            self.open[arguments[0]].data += arguments[1]
        elif name == "sync":
            node = self.open[arguments[0]]
            node.certain_data = node.data
        elif name == "sync_file":
            node = self._find(arguments[0])
            node.certain_data = node.data
        elif name == "sync_folder":
            node = self._find(arguments[0])
            node.certain_names = dict(node.names)
        elif name == "rename":
            source, old = self._parent(arguments[0])
            target, new = self._parent(arguments[1])
            target.names[new] = source.names.pop(old)
        elif name == "symlink":
            parent, leaf = self._parent(arguments[1])
            parent.names[leaf] = Node("link", arguments[0].encode())
        elif name in ("unlink", "rmdir"):
            parent, leaf = self._parent(arguments[0])
            del parent.names[leaf]
        else:
            assert name == "close", name
            del self.open[arguments[0]]

    def write_out(self, folder: Path, cut: str, chance: random.Random) -> None:
        """Write to ``folder`` (new) what the disk holds when the power is cut now."""
        folder.mkdir()
        _write_out(self.tree, folder, cut, chance)


def _write_out(node: Node, folder: Path, cut: str, chance: random.Random) -> None:
    names = node.certain_names
    if cut == "contents lost":
        names = node.names
    elif cut == "some lost":
        names = {
            name: versions[chance.randrange(2)]
            for name in {**node.certain_names, **node.names}
            if (versions := (node.certain_names.get(name), node.names.get(name)))
        }
    for name, child in names.items():
        if child is None:
            continue
        path = folder / name
        if child.kind == "folder":
            path.mkdir()
            _write_out(child, path, cut, chance)
        elif child.kind == "link":
            path.symlink_to(child.data.decode())
        else:
            data = child.certain_data
            if cut == "some lost" and child.data != child.certain_data:
                data = child.data[: chance.randrange(len(child.data) + 1)]
            path.write_bytes(data)
            path.chmod(0o755 if child.executable else 0o644)
