"""What a service answered, as a :class:`Client` gives it.

In: messages of :mod:`tatvpr_edge.runtime.messages`. Out: ``Match``, ``Addition``, a descriptor. A
deploy starts the service again under programs that go on, so that what answers may be newer than
who asks: what it says beyond what is known here is left out.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.found import Candidate
from tatvpr_edge.runtime.growth import Addition
from tatvpr_edge.runtime.match import Match
from tatvpr_edge.spec.errors import DeployError
from tatvpr_edge.spec.text import printable

T = TypeVar("T")


def match_from(answer: dict[str, Any], path: str) -> Match:
    """The match that the service at ``path`` answered.

    Raises:
        DeployError: it says something else.
    """
    with _of_one_version(path):
        match = dict(answer["match"])
        candidates = tuple(_known(Candidate, item) for item in match.pop("candidates"))
        return _known(Match, {**match, "candidates": candidates, "mark": answer.get("mark")})


def addition_from(answer: dict[str, Any], path: str) -> Addition:
    """What became of a frame that was offered to the map of the service at ``path``.

    Raises:
        DeployError: it says something else.
    """
    with _of_one_version(path):
        return _known(Addition, answer["addition"])


def descriptor_from(answer: dict[str, Any], data: bytes, path: str) -> NDArray[np.float32]:
    """The descriptor float32 [D] that the service at ``path`` answered.

    Raises:
        DeployError: it says something else.
    """
    with _of_one_version(path):
        if len(data) != 4 * answer["size"]:
            raise ValueError(f"a descriptor of {answer['size']} numbers in {len(data)} bytes")
        return np.frombuffer(data, "<f4").astype(np.float32)


def another_version(path: str, why: object) -> DeployError:
    """The service at ``path`` answers what no service of this version would."""
    return DeployError(
        f"the service at {path} answers as another version of tatvpr-edge does ({printable(why)}): "
        "start it, and this program, again with one version, as `tatvpr-edge deploy` and the "
        "release's own Python do"
    )


@contextlib.contextmanager
def _of_one_version(path: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise another_version(path, error) from None


def _known(kind: type[T], values: dict[str, Any]) -> T:
    """``kind`` of those values that it has. JSON has no tuples, and null for what is not known of
    a position."""
    made = {}
    for of in fields(kind):  # type: ignore[arg-type]
        if of.name in values:
            value = values[of.name]
            listed = isinstance(value, list)
            made[of.name] = tuple(math.nan if n is None else n for n in value) if listed else value
    return kind(**made)
