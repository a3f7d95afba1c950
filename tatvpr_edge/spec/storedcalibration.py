"""A calibration as a band's record in a place map's file (docs/placemap-format.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .calibration import (
    CALIBRATIONS,
    NO_DIALS,
    Calibration,
    DialWeights,
    SequenceCalibration,
    check_calibration,
)
from .errors import MapError
from .maplayout import SEQUENCE


def calibration_fields(given: Calibration | None) -> tuple[float, ...]:
    """A band's calibration of single frames, as :func:`read_calibration` takes its fields."""
    if given is None:
        return (0,) * 9
    return (
        *(CALIBRATIONS[given.kind], given.precision, given.recall, given.threshold),
        *given.weights,
        *(given.elsewhere_m, given.elsewhere_places),
    )


def dial_fields(given: Calibration | None) -> tuple[float | int, ...]:
    """What dials count, then the lowest of each: of single frames, and of sequences."""
    frames = NO_DIALS if given is None else given.dials
    sequences = NO_DIALS if given is None or given.sequence is None else given.sequence.dials
    weights = (frames.k, frames.tokens, sequences.k, sequences.tokens)
    leasts = [(of.least_k_percent, of.least_tokens_percent) for of in (frames, sequences)]
    return (*weights, *leasts[0], *leasts[1])


def sequence_bytes(given: Calibration | None) -> bytes:
    """What it says of sequences; zero bytes where that is nothing."""
    if given is None or given.sequence is None:
        return bytes(SEQUENCE.size)
    of = given.sequence
    return SEQUENCE.pack(of.frames, of.precision, of.recall, of.threshold, *of.weights)


def read_calibration(
    fields: tuple[Any, ...], sequence: bytes, dials: tuple[Any, ...]
) -> Calibration | None:
    """The calibration that a band's record holds; None: it holds none.

    Raises:
        MapError: its numbers are none of a calibration.
    """
    code, precision, recall, threshold, *weights, elsewhere_m, elsewhere_places = fields
    if code == 0:
        if any(value != 0 for value in (*fields, *dials)) or any(sequence):
            raise MapError("a band without a calibration has numbers of one: damaged")
        return None
    kind = {number: name for name, number in CALIBRATIONS.items()}.get(code)
    if kind is None:
        raise MapError(f"calibration kind {code} is unknown here: update tatvpr-edge")
    numbers = (shortest(value) for value in (threshold, *weights, elsewhere_m, precision, recall))
    limit, w0, w1, w2, metres, right, answered = numbers
    found = Calibration(
        kind,
        limit,
        (w0, w1, w2),
        metres,
        elsewhere_places,
        right,
        answered,
        _read_sequence(sequence, _read_dials(dials[2:4], dials[6:])),
        _read_dials(dials[:2], dials[4:6]),
    )
    check_calibration(found)
    return found


def _read_dials(weights: tuple[float, float], leasts: tuple[int, int]) -> DialWeights:
    return DialWeights(shortest(weights[0]), shortest(weights[1]), *leasts)


def _read_sequence(stored: bytes, dials: DialWeights) -> SequenceCalibration | None:
    if not any(stored):
        if dials != NO_DIALS:
            raise MapError("a band that judges no sequences has a number of them: damaged")
        return None
    frames, *numbers = SEQUENCE.unpack(stored)
    precision, recall, threshold, *weights = map(shortest, numbers)
    return SequenceCalibration(frames, threshold, tuple(weights), precision, recall, dials)


def shortest(value: float) -> float:
    """A stored float32 as the shortest decimal that means it (0.2, not 0.20000000298)."""
    return float(str(np.float32(value)))
