"""What a profile document is made of: whoever reads one may take every part of it as it is here.

A board writes it, and a board's bytes are somebody else's: what has no such form is named, before a
report, a table or an artifact's manifest is made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.fields import is_number

#: A rule for one value, a table of them by key ("key?": may be missing), or one for each of a list.
Shape = Callable[[Any], bool] | dict[str, Any] | list[Any]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _share(value: Any) -> bool:
    return is_number(value) and 0 < value <= 1


def _amount(value: Any) -> bool:
    return is_number(value) and value >= 0


def _or_none(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


def _reading(value: Any) -> bool:
    """[seconds, mW or null]."""
    return isinstance(value, list) and len(value) == 2 and _amount(value[0]) and _known(value[1])


_known = _or_none(_amount)
_word = _or_none(_text)

_POINT: Shape = {
    "k": _share,
    "tokens": _share,
    "latency_ms": dict.fromkeys(("p50", "p95", "p99", "mean", "min", "max", "count"), _amount),
    "energy_mj": _known,
    "energy_gross_mj?": _known,
    "power_mw?": _known,
    "energy_note?": _text,
    "macs": _known,
    "recall": _known,
    "valid": _flag,
    "invalid": _text,
    "busy?": _flag,
    "others_cores?": _known,
    "layers": [{"name": _text, "ms": _amount}],
}
_DOCUMENT: Shape = {
    "artifact": {
        **dict.fromkeys(("model", "model_hash", "board"), _text),
        **dict.fromkeys(("kernels?", "backend?", "files_hash?"), _word),
    },
    "device": {
        **dict.fromkeys(("power_note", "idle_note"), _text),
        **dict.fromkeys(("machine?", "processor?", "power_mode?", "scaling_governor?"), _word),
        **dict.fromkeys(("power_source", "power_covers"), _word),
        "clock_mhz?": [_amount],
        "idle_mw?": _known,
    },
    "recall?": {"what": _text},
    "method": {"what": _text, "warmup": _amount, "frames": [[_amount]]},
    "points": [_POINT],
    "power": [_reading],
    "events": [{"name": _text, "start_s": is_number, "ms": _amount, "k": _share, "tokens": _share}],
}


def check_shape(document: Any, where: str) -> None:
    """Raise DataError where a part of a profile is missing or of another form."""
    _check(document, _DOCUMENT, "the document", where)


def _check(value: Any, shape: Shape, name: str, where: str) -> None:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise DataError(f"{where}: {name} is no table of a profile: profile again")
        for key, inner in shape.items():
            needed, key = not key.endswith("?"), key.removesuffix("?")
            if key in value:
                _check(value[key], inner, f"{name}, {key}", where)
            elif needed:
                raise DataError(f"{where}: {name} lacks {key}: profile again")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise DataError(f"{where}: {name} is no list: profile again")
        for number, one in enumerate(value):
            _check(one, shape[0], f"{name}[{number}]", where)
    elif not shape(value):
        raise DataError(f"{where}: {name} is not what a profile holds there: profile again")
