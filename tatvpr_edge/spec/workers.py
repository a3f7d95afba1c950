"""Work shared among threads, where a thread that ends is noticed.

``concurrent.futures`` waits for ever when memory runs out in its own bookkeeping: the worker ends,
and what it had taken is never finished. Where a limit leaves no room for threads, the caller's own
does the work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from tatvpr_edge.spec.shortage import threads_with_room

T = TypeVar("T")
R = TypeVar("R")

#: How long nothing may come before we look whether the threads are still there.
_LOOK_S = 0.5


def in_order(
    one: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    ahead: int | None = None,
    stop: Callable[[], object] | None = None,
) -> Iterator[R]:
    """What ``one`` makes of each of ``items``, in their order.

    Items are fetched in the caller's thread, no more of them than threads need: at most ``ahead``
    (2 a worker) are taken of which the caller has not yet seen the result.

    ``stop`` is called where it ends before all are made (Ctrl-C, one that failed): what is begun is
    waited for, and may be of no use any more.

    Raises:
        MemoryError: a thread ended in the midst of its work.
        Exception: what ``one`` raises, in its turn. What is begun then ends; no more is begun.
    """
    held: dict[int, _Made[R]] = {}
    with _Workers(one, items, workers, stop) as pool:
        ahead = ahead or 2 * workers
        for turn in range(1 << 62):
            while pool.begun - turn < ahead and pool.begin():
                pass
            if turn == pool.begun:
                return
            while turn not in held:
                made = pool.wait()
                held[made.number] = made
            yield held.pop(turn).result()


def as_done(
    one: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    stop: Callable[[], object] | None = None,
) -> Iterator[R]:
    """As :func:`in_order`, but each result as soon as it is there."""
    with _Workers(one, items, workers, stop) as pool:
        ended = 0
        while True:
            while pool.begun - ended < workers and pool.begin():
                pass
            if ended == pool.begun:
                return
            ended += 1
            yield pool.wait().result()


class _Made(Generic[R]):
    """What became of one item."""

    def __init__(self, number: int, value: R | None, error: Exception | None) -> None:
        self.number = number
        self._value = value
        self._error = error

    def result(self) -> R:
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # without an error it is what was made


class _Workers(Generic[T, R]):
    """Threads, begun as they are needed, ended at the end of the ``with``."""

    def __init__(
        self,
        one: Callable[[T], R],
        items: Iterable[T],
        workers: int,
        stop: Callable[[], object] | None = None,
    ) -> None:
        self._one = one
        self._stop = stop
        self._items = iter(items)
        self._most = threads_with_room(max(1, workers))
        self._todo: SimpleQueue[tuple[int, T] | None] = SimpleQueue()
        self._made: SimpleQueue[_Made[R]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.begun = 0

    def __enter__(self) -> _Workers[T, R]:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with suppress(Empty):
            while True:
                self._todo.get_nowait()
        if kind is not None and self._stop is not None:
            self._stop()
        for _thread in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def begin(self) -> bool:
        """The next item, if there is one."""
        for item in self._items:
            if len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name="tatvpr-work", daemon=True)
                thread.start()
                self._threads.append(thread)
            self.begun += 1
            if self._threads:
                self._todo.put((self.begun - 1, item))
            else:
                self._do(self.begun - 1, item)
            return True
        return False

    def wait(self) -> _Made[R]:
        while True:
            with suppress(Empty):
                return self._made.get(timeout=_LOOK_S)
            if not all(thread.is_alive() for thread in self._threads) and self._made.empty():
                raise MemoryError("a thread ended in the midst of its work")

    def _work(self) -> None:
        # What ends it between two items is seen by who waits.
        with suppress(BaseException):
            while (job := self._todo.get()) is not None:
                self._do(*job)
                del job

    def _do(self, number: int, item: T) -> None:
        try:
            made = _Made(number, self._one(item), None)
        except Exception as error:
            made = _Made(number, None, error)
        self._made.put(made)
