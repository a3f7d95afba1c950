"""Threads that share work: results in their order or as they come, few items ahead, and no waiting
for a thread that is gone."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatvpr_edge.spec.workers import as_done, in_order

BOTH = pytest.mark.parametrize("share", [in_order, as_done])


@given(st.lists(st.integers()), st.integers(1, 5), st.integers(1, 7))
def test_every_item_is_done_once(items: list[int], workers: int, ahead: int) -> None:
    assert list(in_order(lambda x: -x, items, workers, ahead)) == [-x for x in items]
    assert sorted(as_done(lambda x: -x, items, workers)) == sorted(-x for x in items)


def test_a_slow_one_keeps_its_turn_and_no_more() -> None:
    """Item 0 ends after all that may be begun beside it."""
    first, begun = threading.Event(), []

    def one(item: int) -> int:
        begun.append(item)
        if item == 0:
            assert first.wait(30)
        if item == 5:
            first.set()
        return item

    assert list(in_order(one, range(20), workers=2, ahead=6)) == list(range(20))
    assert sorted(begun) == list(range(20)) and begun.index(5) < 6


def test_as_done_does_not_wait_for_a_slow_one() -> None:
    others = threading.Event()
    done = as_done(lambda item: item or (others.wait(30) and item), range(4), workers=2)
    assert sorted([next(done), next(done), next(done)]) == [1, 2, 3]
    others.set()
    assert list(done) == [0]


@BOTH
def test_where_a_limit_leaves_no_room_the_callers_thread_works(share: Callable[..., Any]) -> None:
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 40_000_000, limit[1]))
    try:
        where = list(share(lambda item: (item, threading.get_ident()), range(9), 4))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert where == [(item, threading.get_ident()) for item in range(9)]


@BOTH
def test_a_fault_ends_it_and_nothing_else_is_begun(share: Callable[..., Iterator[int]]) -> None:
    begun = []

    def one(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    with pytest.raises(ValueError, match="three"):
        list(share(one, range(1000), 2))
    assert max(begun) < 12
    assert not [thread for thread in threading.enumerate() if thread.name == "tatvpr-work"]


@BOTH
def test_who_stops_asking_leaves_no_thread(share: Callable[..., Any]) -> None:
    results = share(abs, iter(range(1000)), 3)
    assert next(results) in (0, 1, 2)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "tatvpr-work"]


@BOTH
def test_a_thread_that_ends_is_noticed(share: Callable[..., Iterator[int]]) -> None:
    """As where there is no memory for the bookkeeping between two items: the error comes while the
    thread waits for its next one."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    worked: list[int] = []

    def items() -> Iterator[int]:
        yield 1
        while not worked:
            time.sleep(0.01)
        time.sleep(0.1)  # until it waits
        raise_in(ctypes.c_ulong(worked[0]), ctypes.py_object(MemoryError))
        yield 2

    with pytest.raises(MemoryError, match="a thread ended"):
        list(share(lambda _: worked.append(threading.get_ident()), items(), 1))
    assert len(worked) == 1
