"""The optional systemd unit that keeps a warm ``Localizer`` on the board.

Runs on the board as part of the agent (standard library only). The unit belongs to the user who
deploys: a system unit for root, a user unit otherwise. Its text names ``current``, so that a
restart is all that a switch needs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from tatvpr_edge.runtime import deployed
from tatvpr_edge.spec.errors import DeployError

from .script import inline
from .store import Store

UNIT = "tatvpr-edge.service"
_SECONDS = 60.0
#: Longer than systemd itself lets our unit take to stop and to start.
RESTART_S = 300.0
_PAUSE_S = 0.1
_ROOT = re.compile(rf'^Environment="{deployed.ROOT_VARIABLE}=(.*)"$', re.MULTILINE)
#: Names of units (systemd.unit(5)); none that systemctl could take for an option.
_UNIT = re.compile(r"[A-Za-z0-9_@:][A-Za-z0-9_@:.\\\-]{0,200}")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOWHERE = "/dev/null/tatvpr-edge"


def unit_text(root: str, python: list[str], settings: Sequence[str] = ()) -> str:
    """The unit: starts with the board, restarts after a crash, and is killed and restarted when it
    does not prove itself alive every 30 s (it queries its own golden frame before each sign).
    ``settings`` are further words of ``serve``: its k, tokens, budget or preset.

    Raises:
        DeployError: the root's path or a setting cannot be written in a unit.
    """
    if any(ord(letter) < 32 for text in (root, *settings) for letter in text):
        raise DeployError(
            "a systemd unit cannot hold a path or setting with control characters: no --service"
        )
    current = os.path.join(root, deployed.CURRENT)
    # What the release's own script does, by a copy that does not rot with the release. It looks
    # first whether the runtime is whole, and names Python as this login finds it.
    run = [shutil.which("sh") or "/bin/sh", "-c", inline(python), current]
    run += ["-m", "tatvpr_edge.runtime", "serve", "--root", root]
    start = [_quoted(word).replace("$", "$$") for word in [*run, *settings]]
    found = shutil.which(python[0])
    path = os.pathsep.join([*([os.path.dirname(found)] if found else []), _PATH])
    lines = [
        "[Unit]",
        "Description=tatvpr-edge: answers place queries over a Unix socket",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "ExecStart=" + " ".join(start),
        # "-": where the live release lost all of itself, the one before it starts.
        "WorkingDirectory=-" + current.replace("%", "%%"),
        "Environment=" + _quoted(f"{deployed.ROOT_VARIABLE}={root}"),
        "Environment=" + _quoted(f"PATH={path}"),
        "Environment=PYTHONDONTWRITEBYTECODE=1",
        # Compiled files beside the release's modules are not looked at.
        f"Environment=PYTHONPYCACHEPREFIX={_NOWHERE}",
        "Restart=always",
        "RestartSec=2",
        "WatchdogSec=30",
        "TimeoutStartSec=120",
        "",
        "[Install]",
        "WantedBy=" + ("multi-user.target" if os.geteuid() == 0 else "default.target"),
        "",
    ]
    return "\n".join(lines)


def unit_path() -> str:
    """Where this user's units lie."""
    if os.geteuid() == 0:
        return os.path.join("/etc/systemd/system", UNIT)
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "systemd", "user", UNIT)


def after_switch(
    store: Store, python: list[str], wanted: Any, settings: Sequence[str] = ()
) -> str | None:
    """Restart the unit if it is this root's.

    ``wanted``: install it first (True), with these words for ``serve``, or remove it (False).
    Returns its state. A unit that fails to install is taken out again.

    Raises:
        DeployError: systemd refuses it, or the service does not come up.
    """
    if wanted is False:
        _remove(store)
        return None
    if not wanted:
        if not _ours(store.root):
            return None
        restart_units([UNIT], store.tick)
        return state(store.root)
    path, before = unit_path(), unit()
    theirs = None if before is None or _ours(store.root) else before.decode("utf-8", "replace")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    store.replace(path, unit_text(store.root, python, settings).encode("utf-8"))
    try:
        _systemctl("daemon-reload")
        _systemctl("enable", UNIT)
        restart_units([UNIT], store.tick)
    except DeployError:
        put_back(store, before)
        raise
    if theirs is not None:
        root = _ROOT.search(theirs)
        store.warnings.append(
            f"{UNIT} served {root[1] if root else 'something else'} until now, and does so no "
            "longer: a user has one such unit"
        )
    if not _lingers():
        store.warnings.append(
            "the service ends when this user's last login does, and does not start with the board: "
            f"run `sudo loginctl enable-linger {os.geteuid()}` there"
        )
    return state(store.root)


def _lingers() -> bool:
    """Whether what this user starts goes on without a login, as far as logind says."""
    if os.geteuid() == 0:
        return True
    words = ["loginctl", "show-user", str(os.geteuid()), "--property=Linger", "--value"]
    try:
        return _ran(words, lambda: None, _SECONDS).stdout.strip() != b"no"
    except (DeployError, OSError):
        return True


def look(wanted: Any) -> None:
    """Before anything is sent: a unit that is wanted can be installed here.

    Raises:
        DeployError: there is no systemd, or it does not run (as in most containers).
    """
    if wanted:
        done = _run("show-environment")
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            why = f" ({said[-1][:200]})" if said else ""
            raise DeployError(f"the board's systemd does not answer{why}: deploy without --service")


def check_units(names: Any) -> list[str]:
    """Units of the robot's own programs by name, ``.service`` where no kind is said.

    Raises:
        DeployError: a name that no unit has.
    """
    if not isinstance(names, (list, tuple)):
        raise DeployError("the units to restart are no list of names")
    for name in names:
        if not isinstance(name, str) or _UNIT.fullmatch(name) is None:
            raise DeployError(f"{str(name)[:80]!r} is no name of a systemd unit")
    return [name if "." in name else name + ".service" for name in names]


def look_for(names: Any) -> list[str]:
    """Before anything is sent: the units that are to be restarted are known to this systemd.

    Raises:
        DeployError: there is no systemd, or it does not know one of them.
    """
    units = check_units(names)
    for unit in units:
        done = _run("show", "--property=LoadState", "--value", unit)
        said = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode or said != "loaded":
            whose = "the system's" if os.geteuid() == 0 else f"the systemd of user {os.geteuid()}"
            raise DeployError(
                f"{whose} unit {unit} cannot be restarted: it is {said or 'not answered for'}; "
                "units of the system are root's, others their user's"
            )
    return units


def restart_units(units: Sequence[str], tick: Callable[[], None]) -> None:
    """Restart programs, so that they open the release that is live. ``tick`` is called meanwhile.

    Raises:
        DeployError: one of them does not start.
    """
    for unit in units:
        _systemctl("restart", unit, tick=tick, seconds=RESTART_S)


def restart_after_return(store: Store, units: Sequence[str] = ()) -> None:
    """As :func:`restart_units` after going back, this root's own unit first: nothing that fails now
    is worth more than that."""
    for unit in [*([UNIT] if _ours(store.root) else []), *units]:
        with contextlib.suppress(DeployError):
            restart_units([unit], store.tick)


def put_back(store: Store, before: bytes | None) -> None:
    """The :func:`unit` as it was ``before`` a deploy that failed: no later one meets another. That
    of another root runs again; this root's own is for :func:`restart_after_return`."""
    if unit() == before:
        return
    if before is None:
        _remove(store)
        return
    store.replace(unit_path(), before)
    for words in (("daemon-reload",), ("enable", UNIT)):
        with contextlib.suppress(DeployError):
            _systemctl(*words)
    if not _ours(store.root):
        with contextlib.suppress(DeployError):
            restart_units([UNIT], store.tick)


def _remove(store: Store) -> None:
    """Stop and remove this root's unit; a systemd that is not there does not keep the file."""
    if not _ours(store.root):
        return
    with contextlib.suppress(DeployError):
        _systemctl("disable", "--now", UNIT)
    store.discard(unit_path())
    with contextlib.suppress(DeployError):
        _systemctl("daemon-reload")


def unit() -> bytes | None:
    """The text of this user's unit; None where there is none that can be read."""
    try:
        with open(unit_path(), "rb") as source:
            return source.read()
    except OSError:
        return None


def state(root: str) -> str | None:
    """``active``, ``failed`` and so on; None where this root has no unit."""
    if not _ours(root):
        return None
    try:
        done = _run("is-active", UNIT)
    except DeployError as error:
        return str(error)
    return done.stdout.decode("utf-8", "replace").strip() or "unknown"


def _ours(root: str) -> bool:
    try:
        with open(unit_path(), encoding="utf-8") as source:
            text = source.read()
    except (OSError, UnicodeDecodeError):
        return False
    return "Environment=" + _quoted(f"{deployed.ROOT_VARIABLE}={root}") in text.splitlines()


def _quoted(word: str) -> str:
    """A word as systemd reads it: C-style quotes, ``%`` doubled."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{word}"'


def _systemctl(
    *arguments: str, tick: Callable[[], None] = lambda: None, seconds: float = _SECONDS
) -> None:
    done = _run(*arguments, tick=tick, seconds=seconds)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        why = said[-1] if said else f"exit status {done.returncode}"
        what = " ".join(arguments)
        raise DeployError(f"systemctl {what} failed on the board: {why}")


def _run(
    *arguments: str, tick: Callable[[], None] = lambda: None, seconds: float = _SECONDS
) -> subprocess.CompletedProcess[bytes]:
    scope = [] if os.geteuid() == 0 else ["--user"]
    try:
        return _ran(["systemctl", *scope, *arguments], tick, seconds)
    except FileNotFoundError:
        raise DeployError("the board has no systemd: deploy without --service") from None


def _ran(
    words: list[str], tick: Callable[[], None], seconds: float
) -> subprocess.CompletedProcess[bytes]:
    end = time.monotonic() + seconds
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            while True:
                tick()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    said = process.communicate(timeout=_PAUSE_S)
                    return subprocess.CompletedProcess(words, process.returncode, *said)
                if time.monotonic() > end:
                    what = " ".join(words)
                    raise DeployError(f"{what} took more than {seconds:.0f} s on the board")
        except BaseException:
            process.kill()
            raise
