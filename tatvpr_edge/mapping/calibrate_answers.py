"""What a map answered to queries whose truth is known, for ``map calibrate`` to learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.calibrate_queries import F64, FEWEST, Bools
from tatvpr_edge.mapping.logistic import fit_columns, log_odds_of
from tatvpr_edge.spec.calibration import NO_DIALS, DialWeights, dimming

#: band, (k, tokens), columns, right, answerable, where of one answer.
Row = tuple[int, tuple[float, float], tuple[float, ...], bool, bool, int]
_NAMES = ("band", "k", "tokens", "columns", "right", "answerable", "where_asked", "few")
#: In so many parts of the map it is looked what the others teach.
_PARTS = 5


@dataclass(frozen=True)
class AtSetting:
    """What one calibration for all settings gives at one of them.

    Attributes:
        recall: share accepted of the queries there whose place the map holds.
        accepted, right: answers accepted there, and how many of them are right.
    """

    k: float
    tokens: float
    recall: float
    accepted: int
    right: int


@dataclass(frozen=True)
class Answers:
    """Answers to known queries, or along known sequences.

    Attributes:
        band: int [N]: which band was searched.
        k, tokens: float64 [N]: of the query.
        columns: float64 [N, M]: what an answer is judged by. Of single frames score and margin; of
            sequences evidence, the root of its margin, still, its margin, steady.
        right: bool [N].
        answerable: bool [N]: whether a right answer was in the map.
        where_asked: int [N]: the place of the map where the query was, or its path began.
        few: bool [N]: whether it rests on fewer frames than a sequence has; of none, where it is
            left out.
    """

    band: NDArray[np.int64]
    k: F64
    tokens: F64
    columns: F64
    right: Bools
    answerable: Bools
    where_asked: NDArray[np.int64]
    few: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        if not len(self.few):
            object.__setattr__(self, "few", np.zeros(len(self.right), np.bool_))

    @classmethod
    def of(cls, rows: Sequence[Row], width: int, few: Sequence[bool] = ()) -> Answers:
        """The answers of ``rows``, which are judged by ``width`` numbers."""
        bands, dials, columns, rights, answerables, places = (
            zip(*rows, strict=True) if rows else [()] * 6
        )
        ks, tokens = zip(*dials, strict=True) if rows else [()] * 2
        return cls(
            np.array(bands, np.int64),
            np.array(ks, np.float64),
            np.array(tokens, np.float64),
            np.array(columns, np.float64).reshape(len(rows), width),
            np.array(rights, np.bool_),
            np.array(answerables, np.bool_),
            np.array(places, np.int64),
            np.array(few, np.bool_),
        )

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """All answers of several."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES))

    def __len__(self) -> int:
        return len(self.right)

    def seen(self) -> tuple[int, int]:
        """How many of them are right, and how many wrong."""
        right = int(self.right.sum())
        return right, len(self) - right

    def learn(self) -> tuple[tuple[float, ...], DialWeights]:
        """(weights, what dials count) of a logistic calibration, from right and wrong answers, both
        of which must be there. Of one k alone what k counts cannot be told: it is 0 then; likewise
        of tokens. A map keeps the least of each in percent, rounded up: what rounds to
        all of it is 1."""
        leasts = {dial: _least_percent(getattr(self, dial)) for dial in ("k", "tokens")}
        varied = [
            dial
            for dial, least in leasts.items()
            if least < 100 and len(np.unique(getattr(self, dial))) > 1
        ]
        dimmed = [_dimmed(getattr(self, dial), 0) for dial in varied]
        learned = fit_columns(np.column_stack([self.columns, *dimmed]), self.right)
        weights, made = learned[: self.columns.shape[1] + 1], NO_DIALS
        for dial, weight in zip(varied, learned[len(weights) :], strict=True):
            if weight != 0:
                told: dict[str, Any] = {dial: weight, f"least_{dial}_percent": leasts[dial]}
                made = replace(made, **told)
        return weights, made

    def odds(self, weights: Sequence[float], dials: DialWeights) -> F64:
        """float64 [N]: the log-odds that each answer is right."""
        counted: F64 = log_odds_of(weights, self.columns)
        counted = counted + dials.k * _dimmed(self.k, dials.least_k_percent)
        return counted + dials.tokens * _dimmed(self.tokens, dials.least_tokens_percent)

    def odds_by_others(self) -> F64:
        """float64 [N]: the log-odds by weights that other parts of the map taught. Answers along
        one path, and to one frame at several settings, are right or wrong together: by weights
        that they taught themselves they look surer than answers elsewhere are. (A part whose
        others have too few right or wrong ones is judged by all.)"""
        odds = np.zeros(len(self))
        for places in np.array_split(np.unique(self.where_asked), _PARTS):
            here = np.isin(self.where_asked, places)
            others = self.where(~here)
            enough = min(others.seen()) >= FEWEST
            odds[here] = self.where(here).odds(*(others if enough else self).learn())
        return odds

    def by_setting(self, accepted: Bools) -> tuple[AtSetting, ...]:
        """What ``accepted`` bool [N] gives at each setting where a place was there to be found: the
        most tokens first, of them the largest k."""
        made = []
        settings = set(zip(self.tokens.tolist(), self.k.tolist(), strict=True))
        for tokens, k in sorted(settings, reverse=True):
            here = (self.k == k) & (self.tokens == tokens)
            asked, taken = here & self.answerable, here & accepted
            if asked.any():
                right = int((taken & self.right).sum())
                recall = float(accepted[asked].mean())
                made.append(AtSetting(k, tokens, recall, int(taken.sum()), right))
        return tuple(made)

    def where(self, chosen: Bools) -> Answers:
        """Some of them."""
        return Answers(*(getattr(self, name)[chosen] for name in _NAMES))


def _least_percent(values: F64) -> int:
    return min(100, math.ceil(100 * float(values.min(initial=1.0)) - 1e-9))


def _dimmed(values: F64, least_percent: int) -> F64:
    return np.array([dimming(value, least_percent) for value in values.tolist()])
