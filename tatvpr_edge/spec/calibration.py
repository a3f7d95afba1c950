"""How a band of a place map judges its matches: what was learned of when they are right.

:mod:`tatvpr_edge.mapping.calibrate` learns it, the C core judges by it, and
:mod:`tatvpr_edge.spec.storedcalibration` has its bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from .errors import MapError

#: Kinds of calibration and their numbers in a file.
CALIBRATIONS = {"score": 1, "logistic": 2, "rooted": 3}
#: Longest sequence of frames, and weights of its calibration.
MAX_FRAMES, SEQUENCE_WEIGHTS = 1000, 6


@dataclass(frozen=True)
class DialWeights:
    """What k and tokens of a query count in the log-odds of a "logistic" calibration: scores fall
    with both, so that a score at k = .2 may say as much as a higher one at k = 1.

    Attributes:
        k, tokens: what :func:`dimming` of each is multiplied by; 0: it counts nothing.
        least_k_percent, least_tokens_percent: the lowest that this was learned at, in hundredths;
            below it nothing more is counted. 0, and only then, where the weight is.
    """

    k: float = 0.0
    tokens: float = 0.0
    least_k_percent: int = 0
    least_tokens_percent: int = 0


#: Of a calibration that judges every query alike.
NO_DIALS = DialWeights()


def dimming(value: float, least_percent: int = 0) -> float:
    """How far scores fall at a k, or tokens, in (0, 1], as calibrations have it: 0 at 1,
    1 / sqrt(value) - 1. Every operation is rounded to float32, as in the C core."""
    at = max(np.float32(value), np.float32(least_percent) / np.float32(100))
    return float(np.float32(1) / np.sqrt(at) - np.float32(1))


@dataclass(frozen=True)
class SequenceCalibration:
    """When the place is right that consecutive frames give (``runtime/tracking.py``).

    Attributes:
        frames: length of sequence that it was learned with, and is good for.
        threshold: of the log-odds, from which an answer is accepted.
        weights: w0 .. w5 of the log-odds ``w0 + w1 * evidence + w2 * its margin + w3 * still
            + w4 * its margin + w5 * steady``; beside "rooted", the root of the first margin, with
            its sign, stands for it.
        precision, recall, dials: as in :class:`Calibration`.
    """

    frames: int
    threshold: float
    weights: tuple[float, ...]
    precision: float = 0.0
    recall: float = 0.0
    dials: DialWeights = NO_DIALS


@dataclass(frozen=True)
class Calibration:
    """When a match is right, as far as it was measured.

    Attributes:
        kind: "score": a match is accepted from the score ``threshold`` up. "logistic": the
            log-odds that it is right are ``z = w0 + w1 * score + w2 * margin``; it is accepted
            where z reaches ``threshold``. Its margin is its score less the best score *elsewhere*.
            "rooted": the same, beside sequences whose margin counts by its square root.
        threshold: see ``kind``.
        weights: (w0, w1, w2) of "logistic".
        elsewhere_m: places further than this many metres are elsewhere; 0: distance says nothing.
        elsewhere_places: where a position is unknown, so are places of another drive or more than
            this far along the order; 0: order says nothing.
        precision: share of accepted matches that are right, as chosen; 0: not known.
        recall: share of queries that are then accepted, as expected; 0: not known.
        sequence: the same for sequences of frames, never beside "score"; None: not known.
        dials: not of "score": what the query's k and tokens count beside score and margin.
    """

    kind: str
    threshold: float
    weights: tuple[float, float, float] = (0.0, 0.0, 0.0)
    elsewhere_m: float = 0.0
    elsewhere_places: int = 0
    precision: float = 0.0
    recall: float = 0.0
    sequence: SequenceCalibration | None = None
    dials: DialWeights = NO_DIALS


def rooted(margin: float) -> float:
    """The square root of a margin, with its sign, rounded to float32 as in the C core."""
    return math.copysign(float(np.sqrt(np.float32(abs(margin)))), margin)


Judging = TypeVar("Judging", Calibration, SequenceCalibration)


def at_dials(given: Judging, k: float, tokens: float) -> Judging:
    """``given`` as it judges queries at (k, tokens): its w0 holds what they count, in float32."""
    of = given.dials
    if of == NO_DIALS:
        return given
    first = np.float32(given.weights[0])
    first += np.float32(of.k) * np.float32(dimming(k, of.least_k_percent))
    first += np.float32(of.tokens) * np.float32(dimming(tokens, of.least_tokens_percent))
    weights: Any = (float(first), *given.weights[1:])
    return replace(given, weights=weights, dials=NO_DIALS)


def check_calibration(given: Calibration) -> None:
    """Raise MapError where ``given`` cannot be stored: the rules that both readers hold."""
    if given.kind not in CALIBRATIONS:
        raise MapError(f"calibration kind {given.kind!r} is not one of {', '.join(CALIBRATIONS)}")
    numbers = (given.threshold, *given.weights, given.elsewhere_m, given.precision, given.recall)
    if not all(math.isfinite(np.float32(number)) for number in numbers):
        raise MapError("a band's calibration is not finite")
    if not (0 <= given.precision <= 1 and 0 <= given.recall <= 1):
        raise MapError("a calibration's precision and recall are in 0..1")
    if given.elsewhere_m < 0 or not 0 <= given.elsewhere_places < 2**32:
        raise MapError("a calibration's distances are 0 or more")
    _check_dials(given.dials)
    if given.kind == "score":
        if not -1 <= given.threshold <= 1:
            raise MapError(f"a band's threshold is {given.threshold!r}: scores are in -1..1")
        weighted = any(given.weights) or given.dials != NO_DIALS
        if weighted or given.elsewhere_m or given.elsewhere_places:
            raise MapError("a calibration by score has no weights and no distances")
        if given.sequence is not None:
            raise MapError("a calibration by score says nothing of sequences")
    elif not (given.elsewhere_m or given.elsewhere_places):
        raise MapError("a logistic calibration says how far away 'elsewhere' is")
    if given.kind == "rooted" and given.sequence is None:
        raise MapError("a rooted calibration says when sequences are right")
    if given.sequence is not None:
        _check_sequence(given.sequence)


def _check_dials(given: DialWeights) -> None:
    for what, weight, least in (
        ("k", given.k, given.least_k_percent),
        ("tokens", given.tokens, given.least_tokens_percent),
    ):
        if not math.isfinite(np.float32(weight)):
            raise MapError(f"what {what} counts in a band's calibration is not finite")
        if not 0 <= least <= 100 or (least == 0) != (weight == 0):
            raise MapError(
                f"the lowest {what} of a calibration is {least!r} hundredths: 1 to 100 where "
                f"{what} counts, else 0"
            )


def _check_sequence(given: SequenceCalibration) -> None:
    if not 1 <= given.frames <= MAX_FRAMES or len(given.weights) != SEQUENCE_WEIGHTS:
        raise MapError(
            f"a calibration of sequences is of 1 to {MAX_FRAMES} frames, with {SEQUENCE_WEIGHTS} "
            "weights"
        )
    _check_dials(given.dials)
    numbers = (given.threshold, *given.weights, given.precision, given.recall)
    if not all(math.isfinite(np.float32(number)) for number in numbers):
        raise MapError("a band's calibration of sequences is not finite")
    if not (0 <= given.precision <= 1 and 0 <= given.recall <= 1):
        raise MapError("a calibration's precision and recall are in 0..1")
