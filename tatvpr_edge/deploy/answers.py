"""What a board answers, held to what its agent can say.

In: JSON of a board, which may be broken or somebody else's. Out: the same, every key there that is
counted on, of its kind and within bounds, every text printable. Called by
:mod:`tatvpr_edge.deploy.session` for each answer and event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tatvpr_edge.spec.errors import DeployError
from tatvpr_edge.spec.text import printable

from .naming import lead

#: Checks a value and gives it back; ValueError says what was due instead.
Kind = Callable[[Any], Any]

_MAX_TEXT, _MAX_ITEMS, _MAX_DEPTH = 4000, 20_000, 6


def text(value: Any) -> str:
    """A line of text, escaped."""
    if not isinstance(value, str):
        raise ValueError("text was due")
    shown = printable(value[:_MAX_TEXT])
    return shown if len(value) <= _MAX_TEXT else shown + " ..."


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false was due")
    return value


def count(value: Any) -> int:
    """A whole number from 0 up, as files, their sizes and seconds since 1970 are counted; as large
    as every reader of JSON knows, and as a calendar."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise ValueError("a whole number from 0 up was due")
    return value


def optional(kind: Kind) -> Kind:
    """``kind``, or null."""
    return lambda value: None if value is None else kind(value)


def listing(kind: Kind) -> Kind:
    """A list of ``kind``."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) > _MAX_ITEMS:
            raise ValueError(f"a list of at most {_MAX_ITEMS} was due")
        return [kind(item) for item in value]

    return check


def record(needed: dict[str, Kind], others: dict[str, Kind] | None = None) -> Kind:
    """An object with the ``needed`` keys, and perhaps ``others``; what else it has is
    :func:`anything`."""
    kinds = {**(others or {}), **needed}

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
            raise ValueError("an object was due")
        for key in needed:
            if key not in value:
                raise ValueError(f"{key!r} is missing")
        made = {}
        for key, item in value.items():
            try:
                made[text(key)] = kinds.get(key, anything)(item)
            except ValueError as error:
                raise ValueError(f"{printable(key)[:40]!r}: {error}") from None
        return made

    return check


def anything(value: Any, depth: int = 0) -> Any:
    """Any JSON of a few levels, its texts escaped: measurements that differ from board to board."""
    if depth > _MAX_DEPTH:
        raise ValueError("it nests too deeply")
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict) and len(value) <= _MAX_ITEMS:
        return {text(key): anything(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list) and len(value) <= _MAX_ITEMS:
        return [anything(item, depth + 1) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise ValueError("plain JSON of bounded size was due")


_FINISHED = record(
    {
        "release": text,
        "before": optional(text),
        "changed": flag,
        "health": record({}),
        "removed": listing(text),
        "service": optional(text),
        "restarted": listing(text),
        "signer": optional(text),
    }
)
_KEYS: dict[str, Kind] = {
    "keys": listing(record({"name": text, "key": text, "revoked": flag})),
    "enforced": optional(text),
    "trust": optional(text),
    "trust_fault": optional(text),
}
_RELEASE = record(
    {"name": text, "live": flag, "previous": flag, "failed": optional(text)},
    {
        "bytes": count,
        "files": count,
        "map": optional(text),
        "weights": optional(text),
        "fault": optional(text),
        "signed": record(
            {
                "by": optional(text),
                "artifact_by": optional(text),
                "fault": optional(text),
                "serial": optional(count),
                "expires": optional(count),
                "present": flag,
            }
        ),
    },
)
#: By the request that is answered.
ANSWERS: dict[str, Kind] = {
    "hello": record(
        {
            "version": count,
            "root": text,
            "python": text,
            "machine": text,
            "numpy": flag,
            "runtime": optional(text),
            "free_bytes": count,
            "user": count,
            "live": optional(record({})),
        },
        {
            "stamp": optional(
                record(
                    {"content": text, "serial": count, "board": text, "expires": optional(count)}
                )
            )
        },
    ),
    "begin": record(
        {
            "release": text,
            "installed": flag,
            "need": listing(record({"index": count, "have": count, "sha256": text})),
        }
    ),
    "drop": record({}),
    "commit": _FINISHED,
    "rollback": _FINISHED,
    "status": record(
        {
            "root": text,
            "live": optional(text),
            "previous": optional(text),
            "releases": listing(_RELEASE),
            **_KEYS,
        },
        {
            "lost": optional(text),
            "unconfirmed": flag,
            "fallback": optional(record({"live": text, "runs": text, "why": text})),
            "downgrades": flag,
            "lowest_serial": count,
            "free_bytes": count,
            "service": optional(text),
        },
    ),
    "trust": record(_KEYS),
    "revoke": record(_KEYS),
    "downgrades": record(_KEYS),
    "accept_unsigned": record({"was": optional(text), **_KEYS}),
}
EVENTS: dict[str, Kind] = {
    "alive": record({}),
    "step": record({"name": text}),
    "warning": record({"text": text}),
}


def check_answer(board: str, operation: str, answer: Any) -> dict[str, Any]:
    """The answer to ``operation``, checked and printable.

    Raises:
        DeployError: it is not what the agent answers; the text names the board and the key.
    """
    kind = ANSWERS.get(operation, record({}))
    try:
        made: dict[str, Any] = kind(answer)
    except ValueError as error:
        raise DeployError(
            f"{lead(board)} the board's answer to {operation!r} is malformed ({error}): something "
            "there does not speak as our agent does"
        ) from None
    return made


def check_event(board: str, event: dict[str, Any]) -> dict[str, Any]:
    """An event of the agent, checked and printable.

    Raises:
        DeployError: as :func:`check_answer`.
    """
    kind = EVENTS.get(str(event.get("event")))
    try:
        if kind is None:
            raise ValueError("no event of ours")
        made: dict[str, Any] = kind(event)
    except ValueError as error:
        raise DeployError(f"{lead(board)} the board sent a malformed event ({error})") from None
    return made
