"""What a forked child begins anew: a thread of its parent may hold a lock for ever there.

In: objects that hold locks, connections or threads. Each is told in every child, once, before the
child's program goes on.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Has something that a child may not share with its parent."""

    def _after_fork(self) -> None:
        """This is a child: take new locks, and let go of what is the parent's."""


_LIVE: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell_children(one: Forked) -> None:
    """Have every forked child call ``one._after_fork()``, as long as ``one`` lives."""
    _LIVE.add(one)


def _after_fork() -> None:
    for one in list(_LIVE):
        one._after_fork()


os.register_at_fork(after_in_child=_after_fork)
