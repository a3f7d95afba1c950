"""What a map answered to queries whose truth is known, for ``map calibrate`` to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.calibrate_queries import F64, Bools
from tatvpr_edge.mapping.logistic import fit_columns, log_odds_of
from tatvpr_edge.spec.maptypes import dimming

#: Right and wrong answers that are needed at least.
FEWEST = 20
#: band, k, columns, right, answerable of one answer.
Row = tuple[int, float, tuple[float, ...], bool, bool]
_NAMES = ("band", "k", "columns", "right", "answerable")


@dataclass(frozen=True)
class Answers:
    """Answers to known queries, or along known sequences.

    Attributes:
        band: int [N]: which band was searched.
        k: float64 [N]: of the query.
        columns: float64 [N, M]: what an answer is judged by. Of single frames score and margin; of
            sequences evidence, its margin, still, its margin, steady.
        right: bool [N].
        answerable: bool [N]: whether a right answer was in the map.
    """

    band: NDArray[np.int64]
    k: F64
    columns: F64
    right: Bools
    answerable: Bools

    @classmethod
    def of(cls, rows: Sequence[Row], width: int) -> Answers:
        """The answers of ``rows``, which are judged by ``width`` numbers."""
        bands, ks, columns, rights, answerables = zip(*rows, strict=True) if rows else [()] * 5
        return cls(
            np.array(bands, np.int64),
            np.array(ks, np.float64),
            np.array(columns, np.float64).reshape(len(rows), width),
            np.array(rights, np.bool_),
            np.array(answerables, np.bool_),
        )

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """All answers of several."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES))

    def __len__(self) -> int:
        return len(self.right)

    def learn(self) -> tuple[tuple[float, ...], float, float]:
        """(weights, k_weight, least_k) of a logistic calibration, from right and wrong answers,
        both of which must be there. Of one k alone what k counts cannot be told: it is 0 then."""
        if len(np.unique(self.k)) < 2:
            return fit_columns(self.columns, self.right), 0.0, 0.0
        *weights, k_weight = fit_columns(self._with_k(0.0), self.right)
        return tuple(weights), k_weight, float(np.float32(self.k.min())) if k_weight else 0.0

    def odds(self, weights: Sequence[float], k_weight: float, least_k: float) -> F64:
        """float64 [N]: the log-odds that each answer is right."""
        return log_odds_of((*weights, k_weight), self._with_k(least_k))

    def _with_k(self, least_k: float) -> F64:
        return np.column_stack([self.columns, [dimming(max(k, least_k)) for k in self.k.tolist()]])

    def recall_by_k(self, accepted: Bools) -> tuple[tuple[float, float], ...]:
        """(k, share of the queries at k whose place the map holds that are accepted), from the
        largest k down."""
        shares = []
        for k in sorted(set(self.k.tolist()), reverse=True):
            asked = self.answerable & (self.k == k)
            if asked.any():
                shares.append((k, float(accepted[asked].mean())))
        return tuple(shares)

    def where(self, chosen: Bools) -> Answers:
        """Some of them."""
        return Answers(*(getattr(self, name)[chosen] for name in _NAMES))
