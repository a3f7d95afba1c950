"""k and tokens of a ``Localizer``: numbers that a program sets, or what the governor chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.limits import check_fraction
from tatvpr_edge.spec.manifest import Manifest

if TYPE_CHECKING:
    from tatvpr_edge.runtime.governor import Budget, Governor


def is_auto(k: Any) -> bool:
    """Whether ``k`` leaves the choice to the governor."""
    return isinstance(k, str) and k == "auto"


class Dials:
    """What the next call runs at; any thread may turn them at any time.

    Args:
        manifest: of the artifact: its defaults, its range of k and its measured profile.
        engine: gives the artifact's code, in which the governor runs.
        governing: the governor's arguments, by their names in ``Governor``.
    """

    def __init__(
        self, manifest: Manifest, engine: Callable[[], Engine], governing: dict[str, Any]
    ) -> None:
        self._manifest, self._engine = manifest, engine
        self.governing = governing
        self.governor: Governor | None = None
        self._lock = threading.Lock()
        self._fixed_k: float | None = manifest.defaults.k
        self._tokens = manifest.defaults.tokens

    @property
    def k(self) -> float | str:
        """Fraction kept, or "auto"."""
        fixed = self._fixed_k
        return "auto" if fixed is None else fixed

    @k.setter
    def k(self, value: float | str) -> None:
        if is_auto(value):
            self._start_governor()
            self._fixed_k = None
        else:
            self._fixed_k = self.check_k(value)

    @property
    def tokens(self) -> float:
        """Fraction of patch tokens kept while k is a number."""
        return self._tokens

    @tokens.setter
    def tokens(self, value: float) -> None:
        self._tokens = check_fraction(value, "tokens")

    @property
    def budget(self) -> Budget | None:
        """What the governor holds."""
        from tatvpr_edge.runtime.governor import Budget

        return Budget.of(self.governing["budget"])

    @budget.setter
    def budget(self, value: Budget | str | None) -> None:
        from tatvpr_edge.runtime.governor import Budget

        self._govern(budget=Budget.of(value))

    @property
    def preset(self) -> str | None:
        """How a budget is used."""
        preset: str | None = self.governing["preset"]
        return preset

    @preset.setter
    def preset(self, value: str | None) -> None:
        from tatvpr_edge.runtime.governor import check_preset

        self._govern(preset=check_preset(value))

    def check_k(self, value: Any) -> float:
        """``value`` as the backends receive it.

        Raises:
            UsageError: it is no fraction, or outside the range that the artifact was built for.
        """
        k = check_fraction(value, "k")
        low, high = self._manifest.k_range
        if not np.float32(low) <= np.float32(k) <= np.float32(high):
            raise UsageError(
                f"k is {k:g}: this artifact was built for {low:g} to {high:g}; "
                "build it with a wider --k-range"
            )
        return k

    def setting(self) -> tuple[float, float]:
        """(k, tokens) of the next call."""
        fixed = self._fixed_k
        if fixed is not None:
            return fixed, self._tokens
        governor = self.governor
        if governor is None:  # its terms were changed while k was a number
            self._start_governor()
            return self.setting()
        choice = governor.choose()
        return choice.k, choice.tokens

    def observe(self, k: float, tokens: float, describe_ms: float, search_ms: float = 0.0) -> None:
        """Tell the governor, where it chose, what the call at (k, tokens) took."""
        governor = self.governor
        if governor is not None and self._fixed_k is None:
            governor.observe(describe_ms, k, tokens, search_ms)

    def close(self) -> None:
        """Stop the governor's sensors."""
        if self.governor is not None:
            self.governor.close()

    def _start_governor(self) -> None:
        with self._lock:
            if self.governor is None:
                self.governor = self._made_governor(self.governing)

    def _made_governor(self, governing: dict[str, Any]) -> Governor:
        from tatvpr_edge.runtime.governor import Governor, GovernorCore
        from tatvpr_edge.runtime.library import Library

        engine, manifest = self._engine(), self._manifest
        return Governor(
            GovernorCore(engine.c),
            manifest.profile,
            k_range=manifest.k_range,
            pays_below=engine.pays_below if isinstance(engine, Library) else 1.0,
            **governing,
        )

    def _govern(self, **changed: Any) -> None:
        """Takes other terms: at once while k is "auto", else for when it will be."""
        with self._lock:
            governing = {**self.governing, **changed}
            before = self.governor
            auto = self._fixed_k is None
            self.governor = self._made_governor(governing) if auto else None
            self.governing = governing
        if before is not None:
            before.close()
