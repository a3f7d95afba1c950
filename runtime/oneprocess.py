"""What stays with the process that made it, because it holds locks, threads or loaded code."""

from __future__ import annotations

from typing import Any, ClassVar

from tatvpr_edge.spec.errors import UsageError


class OneProcess:
    """Refuses to be pickled or copied, and says what to do in the other process instead."""

    #: "open it there"
    _elsewhere: ClassVar[str]

    def __getstate__(self) -> Any:
        name = type(self).__name__
        raise UsageError(
            f"{'an' if name[0] in 'AEIO' else 'a'} {name} belongs to the process that made it and "
            f"cannot be pickled or copied: {self._elsewhere}"
        )
