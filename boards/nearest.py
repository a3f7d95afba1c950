"""Which board somebody means whose word is no board's name.

People write what stands on the box or in a forum: "rpi5", "Jetson Orin", "stm32h743", "pico 2".
Names and titles are compared without case and punctuation; spelling decides only where no name
or title holds the word.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

#: What people call the machine that they sit at.
_HERE = {"x8664", "x86", "amd64", "pc", "linux", "local", "localhost"}
#: Of names that are spelt nearly alike, those so much less alike than the nearest are not named.
_LESS_ALIKE = 0.06


def nearest(word: str, titles: Mapping[str, str]) -> tuple[str, ...]:
    """The boards that ``word`` may mean, of ``titles`` (title by name), in order; often none."""
    meant = _plain(word)
    if meant in _HERE and "host" in titles:
        return ("host",)
    names = {name: _plain(name) for name in sorted(titles)}
    for fits in (
        lambda name: names[name] == meant,
        lambda name: _holds(names[name], meant),
        lambda name: _holds(_plain(titles[name]), meant),
        lambda name: _holds(meant, names[name]),
    ):
        if found := tuple(filter(fits, names)):
            return found
    alike = {
        name: difflib.SequenceMatcher(None, meant, plain).ratio() for name, plain in names.items()
    }
    least = max(0.6, max(alike.values(), default=0.0) - _LESS_ALIKE)
    return tuple(sorted((n for n in names if alike[n] >= least), key=lambda n: -alike[n]))


def _plain(text: str) -> str:
    """Letters and digits alone; Raspberry Pis by their full name."""
    return re.sub(r"^r?pi(?=\d|zero|$)", "raspberrypi", re.sub(r"[^a-z0-9]", "", text.lower()))


def _holds(text: str, part: str) -> bool:
    return len(part) > 1 and part in text
