"""k and tokens of a ``Localizer``: numbers that a program sets, or what the governor chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.forked import tell_children
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.limits import check_fraction, check_k
from tatvpr_edge.spec.manifest import Manifest

if TYPE_CHECKING:
    from tatvpr_edge.runtime.governor import Budget, Governor


def is_auto(k: Any) -> bool:
    """Whether ``k`` leaves the choice to the governor."""
    return isinstance(k, str) and k == "auto"


class _Set(NamedTuple):
    """What is set at one moment. Exchanged as a whole, so that whoever reads it, in a forked child
    as well, has what belongs together.

    Attributes:
        fixed_k: None: "auto".
        governing: the governor's arguments, by their names in ``Governor``.
        governor: there while k is "auto".
    """

    fixed_k: float | None
    tokens: float
    governing: dict[str, Any]
    governor: Governor | None


class Dials:
    """What the next call runs at; any thread may turn them at any time.

    Without a model, as here, every k is in range, and "auto" is taken where a governor would take
    its terms.

    Args:
        k, tokens: to begin with.
        governing: the governor's arguments, by their names in ``Governor``.
    """

    def __init__(self, k: float, tokens: float, governing: dict[str, Any]) -> None:
        self._set = _Set(k, tokens, governing, None)
        self._lock = threading.Lock()
        self.closed = False
        tell_children(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """For a copy, and for processes that are spawned: without the governor."""
        return {"_set": self._set._replace(governor=None), "closed": self.closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        tell_children(self)

    @property
    def governing(self) -> dict[str, Any]:
        """The governor's arguments, by their names in ``Governor``."""
        return self._set.governing

    @property
    def governor(self) -> Governor | None:
        """What chooses k; None until k was "auto"."""
        return self._set.governor

    @property
    def k(self) -> float | str:
        """Fraction kept, or "auto"."""
        fixed = self._set.fixed_k
        return "auto" if fixed is None else fixed

    @property
    def tokens(self) -> float:
        """Fraction of patch tokens kept while k is a number."""
        return self._set.tokens

    @property
    def budget(self) -> Budget | None:
        """What the governor holds."""
        from tatvpr_edge.runtime.governor import Budget

        return Budget.of(self.governing["budget"])

    @property
    def preset(self) -> str | None:
        """How a budget is used."""
        preset: str | None = self.governing["preset"]
        return preset

    def check_k(self, value: Any) -> float:
        """``value`` as the backends receive it.

        Raises:
            UsageError: it is no fraction, or outside the range that the artifact was built for.
        """
        return check_fraction(value, "k")

    def turn(self, **given: Any) -> None:
        """Set any of k, tokens, budget and preset: together, or none where one is refused.

        Other terms are taken at once where k is "auto" then, else for when it will be.

        Raises:
            UsageError: a value is out of range, k is "auto" and neither budget nor preset is
                left, or the Localizer is closed.
        """
        with self._lock:
            self.check_open()  # a governor that began now would have nobody to stop its sensors
            before = self._set
            now = before
            if "k" in given:
                k = given.pop("k")
                now = now._replace(fixed_k=None if is_auto(k) else self.check_k(k))
            if "tokens" in given:
                now = now._replace(tokens=check_fraction(given.pop("tokens"), "tokens"))
            if given:
                terms = {**now.governing, **_checked(**given)}
                now = now._replace(governing=terms, governor=None)
            if now.fixed_k is None and now.governor is None:
                now = now._replace(governor=self._made_governor(now.governing))
            elif now.fixed_k is None and now.governor is not None and before.fixed_k is not None:
                now.governor.resume()
            self._set = now
        if before.governor is not None and before.governor is not now.governor:
            before.governor.close()

    def keep(self, governing: dict[str, Any]) -> None:
        """Take what another process's governor was given, for when k will be "auto"."""
        with self._lock:
            self._set = self._set._replace(governing=governing)

    def setting(self) -> tuple[float, float]:
        """(k, tokens) of the next call."""
        now = self._set
        if now.fixed_k is not None:
            return now.fixed_k, now.tokens
        assert now.governor is not None
        choice = now.governor.choose()
        return choice.k, choice.tokens

    def setting_of(self, k: float | None, tokens: float | None) -> tuple[float, float]:
        """(k, tokens) of a call that gives its own; None: as :meth:`setting`. The governor is asked
        where something is left to choose: its steps count the calls that it chose for.

        Raises:
            UsageError: one is out of range.
        """
        given_k = None if k is None else self.check_k(k)
        given_tokens = None if tokens is None else check_fraction(tokens, "tokens")
        if given_k is not None and given_tokens is not None:
            return given_k, given_tokens
        set_k, set_tokens = self.setting()
        return (
            set_k if given_k is None else given_k,
            set_tokens if given_tokens is None else given_tokens,
        )

    def observe(self, k: float, tokens: float, describe_ms: float, search_ms: float = 0.0) -> None:
        """Tell the governor, where it chose, what the call at (k, tokens) took."""
        now = self._set
        if now.governor is not None and now.fixed_k is None:
            now.governor.observe(describe_ms, k, tokens, search_ms)

    def check_open(self) -> None:
        """Raise a UsageError where the Localizer is closed."""
        if self.closed:
            raise UsageError("this Localizer is closed: make another, or close it later")

    def close(self) -> None:
        """Stop the governor's sensors; nothing is set from then on."""
        with self._lock:
            self.closed = True
        governor = self.governor
        if governor is not None:
            governor.close()

    def _made_governor(self, governing: dict[str, Any]) -> Governor | None:
        from tatvpr_edge.runtime.governor import Budget, check_governed

        check_governed(Budget.of(governing["budget"]), governing["preset"])
        return None


class ModelDials(Dials):
    """The same of a model.

    Args:
        manifest: of the artifact: its defaults, its range of k and its measured profile.
        engine: gives the artifact's code, in which the governor runs.
    """

    def __init__(
        self, manifest: Manifest, engine: Callable[[], Engine], governing: dict[str, Any]
    ) -> None:
        super().__init__(manifest.defaults.k, manifest.defaults.tokens, governing)
        self._manifest, self._engine = manifest, engine

    def check_k(self, value: Any) -> float:
        """As :meth:`Dials.check_k`."""
        return check_k(value, self._manifest.k_range)

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


def _checked(**given: Any) -> dict[str, Any]:
    """Budget and preset, checked."""
    from tatvpr_edge.runtime.governor import Budget, check_preset

    check = {"budget": Budget.of, "preset": check_preset}
    return {name: check[name](value) for name, value in given.items()}
