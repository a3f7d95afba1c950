"""From the switch on: a release is made live and confirmed, or the one before it returns.

Whoever listens, this goes on to one end or the other; called by the agent with the lock held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tatvpr_edge.spec.errors import DeployError

from . import service
from .admission import Admission
from .health import Health, seconds
from .kept import State, carry_journal, changed_since
from .store import Store
from .switch import HISTORY, Switch


def alive(health: Health, message: dict[str, Any]) -> dict[str, Any]:
    """What a release says of itself, within the times that the host asks for.

    Raises:
        DeployError: it fails.
    """
    start_s, settle_s = seconds(message, "health_s", 60.0), seconds(message, "settle_s", 3.0)
    return health.alive(start_s, settle_s)


@dataclass(frozen=True)
class GoingLive:
    """Makes releases of ``store`` live.

    Attributes:
        health_of: judges the release in a folder.
        step: told what begins.
        python: the board's Python, as words of a command.
        kept: the release was made to keep the map of the one that is live.
    """

    store: Store
    switch: Switch
    health_of: Callable[[str], Health]
    step: Callable[[str], None]
    python: list[str]
    kept: bool = False

    def make(
        self, name: str, units: list[str], message: dict[str, Any], admission: Admission
    ) -> dict[str, Any]:
        """Make the release ``name`` live, and restart ``units``; what the host is answered.

        Raises:
            DeployError: it failed, and what was live before is again.
            OSError: the file system refused the switch, which did not happen.
        """
        live, served = self.switch.live(), service.unit()
        if live != name:
            self._carry_places(live, name, message)
            try:
                self.switch.begin(name)
            except OSError:
                with contextlib.suppress(OSError, DeployError):
                    if self.switch.live() == name:
                        self.switch.go_back(name, live, "the file system refused the switch")
                    else:
                        self.switch.unfinished()  # forgets the announcement
                raise
        self.step("health")
        try:
            health = alive(self.health_of(self.store.release(name)), message)
            carried = self._carry_places(live, name, message) if live != name else None
            unit = service.after_switch(
                self.store, self.python, message.get("service"), message.get("serve", [])
            )
            if units:
                self.step("restart")
                service.restart_units(units, self.store.tick)
        except Exception as error:  # whatever it is, the release before is live again
            with contextlib.suppress(OSError):  # going back may do without
                if self.store.is_short():
                    self.store.drop_spare()
            if live == name:
                if service.unit() != served:
                    self._put_back(served)
                    service.restart_after_return(self.store)
                raise DeployError(f"{name} is live already, and fails: {error}") from None
            self.step("back")
            self.switch.go_back(name, live, str(error))
            self._put_back(served)
            service.restart_after_return(self.store, units)
            # Of those that failed the last one stays, with its reason: they would fill the disk.
            with contextlib.suppress(OSError, DeployError):
                self.switch.collect(HISTORY, also=name)
            raise DeployError(f"{error}: went back, {live or 'no release'} is live") from None
        if live is not None and carried is not None:
            self._warn(changed_since(self.store, live, carried))
        self.step("confirm")
        removed: list[str] = []
        try:
            self.switch.confirm(name, admission.serial, admission.list_serial)
            removed = self.switch.collect(int(message.get("keep", 3)))
            self.store.keep_spare()
        except OSError as error:
            self.store.warnings.append(
                f"{name} is live and healthy, but this could not be recorded ({error.strerror}): "
                "the next deploy checks it again"
            )
        return {
            "release": name,
            "before": live,
            "changed": live != name,
            "health": health,
            "removed": removed,
            "service": unit,
            "signer": admission.signer,
            "restarted": units,
        }

    def _carry_places(self, live: str | None, name: str, message: dict[str, Any]) -> State | None:
        """Places that the board added to its map go along, when the new release has that map; again
        before its programs are restarted, which add until then. On a full or failing disk going
        back matters more: they stay where they are. Returns the state of the live map that was
        carried."""
        if live is None:
            return None
        try:
            carried, warning = carry_journal(self.store, live, name, self.kept)
        except (DeployError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            if message.get("op") == "rollback":
                self._warn(f"the places that the board added to its map stay in {live}: {why}")
                return None
            if self.kept and isinstance(error, DeployError):
                raise
            raise DeployError(
                f"the places that the board added to its map cannot be copied: {why}: mend the "
                "disk, or give another --map, or --no-map"
            ) from None
        self._warn(warning)
        return carried

    def _put_back(self, served: bytes | None) -> None:
        """The unit is as before; that it cannot be is worth less than what follows."""
        with contextlib.suppress(DeployError, OSError):
            service.put_back(self.store, served)

    def _warn(self, text: str | None) -> None:
        if text is not None and text not in self.store.warnings:
            self.store.warnings.append(text)
