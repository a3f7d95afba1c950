"""What TVM raises while it lowers a model, as one line of ours: it has kinds of its own, from every
pass, and quotes its script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tatvpr_edge.spec.errors import ModelError, TatvprError
from tatvpr_edge.spec.shortage import ran_out, shortage
from tatvpr_edge.spec.text import printable

_MOST_LETTERS = 300


@contextmanager
def tvm_lowers(what: Callable[[str], str]) -> Iterator[None]:
    """Around what TVM does with a model, and what is read from its result.

    Args:
        what: names the part of the model, given what TVM said.

    Raises:
        ModelError: TVM cannot lower it, or has not the memory to.
    """
    try:
        yield
    except TatvprError:
        raise  # says already what it is about: a plan or its kernels, no node of the model
    except Exception as error:
        line = printable(" ".join(str(error).split())) or type(error).__name__
        if ran_out(error):
            line = shortage("its values")
        raise ModelError(f"TVM cannot lower {what(line)}: {line[:_MOST_LETTERS]}") from error
