"""The board's half of a deploy: reads requests from the host, changes the install root, answers.

Sent over SSH with the modules that it imports from here and run by ``python3``; nothing of it stays
on the board. Standard library only, Python 3.10. One process serves one connection::

    hello    facts about the board
    begin    lock, settle what an earlier deploy left, say which files are needed
    file     take one file (data frames follow); drop forgets one
    commit   sync, hash, check the signature, run the golden vectors, install, switch, check health,
             and confirm or go back
    rollback make an earlier release live, with the same checks
    status   what is installed; trust, revoke, downgrades and accept_unsigned change who is believed

From the switch on, the agent finishes or goes back by itself, whether the host is there or not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime import deployed, signed_release, trust, whole
from tatvpr_edge.runtime.table import Table, parse_table
from tatvpr_edge.spec.artifact import read_artifact, read_signed
from tatvpr_edge.spec.errors import DeployError, SignatureError, TatvprError
from tatvpr_edge.spec.mounts import noexec_mount

from . import installed, service
from .admission import Admission, check_processor, machine
from .assembly import Assembly, clear_staging
from .channel import LOCKED_S, Channel, HostGone
from .disk import Disk
from .going_live import GoingLive, alive
from .health import Health, seconds
from .keyring import Keyring
from .protocol import MAGIC, VERSION, ProtocolError
from .store import Store
from .switch import Switch


class Agent:
    """Answers the host's requests; ``disk`` is where all changes go through, ``system`` the
    machine's own folder."""

    def __init__(self, channel: Channel, disk: Disk, system: Path | None = None) -> None:
        self.channel = channel
        self.disk = disk
        self.system = trust.SYSTEM if system is None else system
        self.python = ["python3"]
        self.store = Store("/", disk)
        self.switch = Switch(self.store)
        self.table: Table | None = None
        self.installed: str | None = None
        self.signature: bytes | None = None
        #: What is announced was made to keep the live release's map.
        self.keeps_map = False
        self.cancellable = True
        #: What the host was told: many a step meets the same oddity.
        self.warned: set[str] = set()

    # ---- the conversation --------------------------------------------------------------------

    def serve(self) -> int:
        """Answer until the host ends the connection; the exit status."""
        try:
            while True:
                message: dict[str, Any] | None = {}
                try:
                    message = self.channel.next()
                    if message is None:
                        return 0
                    self._answer(message)
                except HostGone:
                    return 0
                except (TatvprError, ProtocolError) as error:
                    self._fail(str(error), type(error).__name__)
                except OSError as error:
                    self._fail(self._os_error(error), "DeployError")
                except (KeyError, TypeError, ValueError) as error:
                    self._fail(f"the host's request is malformed: {error!r}", "DeployError")
                else:
                    continue
                if message is None or message.get("op") in (None, "file"):
                    return 1  # bytes that belong to nothing are on their way: no way to go on
        finally:
            self.store.unlock()

    def _answer(self, message: dict[str, Any]) -> None:
        operations = {
            "hello": self.hello,
            "begin": self.begin,
            "file": self.file,
            "drop": self.drop,
            "commit": self.commit,
            "rollback": self.rollback,
            "status": self.status,
            "trust": self.trust,
            "revoke": self.revoke,
            "accept_unsigned": self.accept_unsigned,
            "downgrades": self.downgrades,
        }
        operation = operations.get(str(message.get("op")))
        if operation is None:
            raise DeployError("the host asks for something that this agent does not know")
        self.cancellable = True
        answer = operation(message)
        for text in self.store.warnings:
            if text not in self.warned:
                self.warned.add(text)
                self.channel.send({"event": "warning", "text": text})
        self.store.warnings.clear()
        if answer is not None:
            self.channel.send({"answer": answer})

    def _fail(self, text: str, kind: str) -> None:
        self.channel.send({"error": text, "kind": kind})

    def _os_error(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            # Half a release is not worth a full disk.
            with contextlib.suppress(OSError, DeployError):
                clear_staging(self.store)
            return (
                f"the board's disk is full ({self.store.root}): free some, or keep fewer releases "
                "with --keep; the live release is untouched"
            )
        where = error.filename or f"below {self.store.root}"
        if error.errno == errno.EROFS:
            return (
                f"the board's disk is mounted read-only ({where}): remount it (`dmesg` "
                "there says whether a fault made it so), or name another --root"
            )
        if error.errno == errno.EACCES:
            return (
                f"the login may not read or write {where} on the board: log in as its owner, "
                "`chown` it, or name another --root"
            )
        return (
            f"the board's file system refused: {error.strerror} ({where}): mend that, or name "
            "another --root"
        )

    def _tick(self) -> None:
        self.channel.alive()
        if self.cancellable and self.channel.host_gone():
            raise HostGone

    def _step(self, name: str) -> None:
        self.channel.send({"event": "step", "name": name})
        if self.cancellable and self.channel.host_gone():
            raise HostGone

    # ---- requests ----------------------------------------------------------------------------

    def hello(self, message: dict[str, Any]) -> dict[str, Any]:
        """Facts about the board."""
        root = os.fspath(deployed.install_root(message.get("root")))
        root = os.path.join(os.path.expanduser("~"), root)
        if not os.path.isabs(root):
            raise DeployError("the login has no home on the board: give --root a whole path")
        root = os.path.realpath(root)
        self.python = [str(word) for word in message.get("python", self.python)]
        self.store = Store(root, self.disk, self._tick)
        self.switch = Switch(self.store)
        self.keeps_map = bool(message.get("of_live"))
        existing = root
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        return {
            "version": VERSION,
            "root": root,
            "python": "{}.{}.{}".format(*sys.version_info),
            "machine": machine(),
            "numpy": installed.has("numpy"),
            "runtime": installed.version_here(),
            "free_bytes": shutil.disk_usage(existing).free,
            "user": os.geteuid(),
            # Only for whom keeps it: a map is large, and it is hashed.
            "live": installed.live(self.store, self.switch) if self.keeps_map else None,
            "stamp": installed.stamp(self.store, self.switch),
        }

    def begin(self, message: dict[str, Any]) -> dict[str, Any]:
        """Lock, settle, plan."""
        table = parse_table(message.get("table"))
        service.look(message.get("service"))
        service.look_for(message.get("restart", []))
        self._open(message)
        self.table, self.installed = table, None
        self.signature = _signature(message)
        admission = self._admission(table.name, message)
        admission.check_list(table.text(), self.signature, table.name)  # before anything is sent
        for name in self.store.releases():
            if name == table.name or name.startswith(table.name + "."):
                fault = self.store.fault(name)
                if fault is None:
                    self.installed = name
                    clear_staging(self.store)
                    return {"release": name, "installed": True, "need": []}
                self.store.warnings.append(f"release {name} is damaged and sent again: {fault}")
        return {"release": table.name, "installed": False, "need": self._plan(table)}

    def _plan(self, table: Table) -> list[dict[str, Any]]:
        try:
            return Assembly(self.store, table).plan()
        except DeployError:
            # Too full: what is older than the release before the live one goes first.
            if not self.switch.collect(keep=2):
                raise
            return Assembly(self.store, table).plan()

    def file(self, message: dict[str, Any]) -> None:
        """Take one file; data frames follow. Answers nothing: the host need not wait."""
        assembly, index = self._assembly(message)
        size, offset = assembly.table.rows[index].bytes, int(message["offset"])
        if not 0 <= offset <= size:  # equal: all of it came before, and the rename did not
            raise ValueError("offset")
        assembly.receive(index, offset, self.channel.chunks(size - offset))

    def drop(self, message: dict[str, Any]) -> dict[str, Any]:
        """Forget one file, because its source changed while it was sent."""
        assembly, index = self._assembly(message)
        assembly.drop(index)
        return {}

    def _assembly(self, message: dict[str, Any]) -> tuple[Assembly, int]:
        if self.table is None or self.installed is not None:
            raise DeployError("a file came, and no release that wants files was announced")
        index = int(message["index"])
        if not 0 <= index < len(self.table.rows):
            raise ValueError("index")
        return Assembly(self.store, self.table), index

    def commit(self, message: dict[str, Any]) -> dict[str, Any]:
        """Check, install, switch, check again, confirm or go back."""
        if self.table is None:
            raise DeployError("nothing was announced to commit")
        if self.installed is None:
            self._step("hash")
            folder = Assembly(self.store, self.table).seal(self.signature)
        else:
            folder = self.store.release(self.installed)
        try:
            admission = self._check(folder, self.installed or self.table.name, message)
        except TatvprError:
            if self.installed is None:
                clear_staging(self.store)
            raise
        self._step("install")
        name = self.installed or Assembly(self.store, self.table).install()
        self.installed = name
        self._renew_signature(name)
        self._warn_of_noexec()
        return self._make_live(name, message, admission)

    def rollback(self, message: dict[str, Any]) -> dict[str, Any]:
        """Make the previous release, or the one named, live."""
        service.look_for(message.get("restart", []))
        self._open(message)
        live = self.switch.live()
        name = message.get("to") or self.switch.previous()
        if name is None:
            raise DeployError("no earlier release is installed on this board: deploy one")
        if name not in self.store.releases():
            raise DeployError(f"{str(name)[:80]!r} is not installed: see `tatvpr-edge status`")
        if name == live:
            raise DeployError(f"{name} is live already")
        self._make_room(name)
        self._step("hash")
        fault = self._fault(name)
        if fault is not None:
            raise DeployError(f"release {name} is damaged: {fault}: deploy it again instead")
        # It was judged when it was installed.
        self.signature = None
        admission = self._check(self.store.release(name), name, message, judged=True)
        return self._make_live(name, message, admission)

    def status(self, message: dict[str, Any]) -> dict[str, Any]:
        """What is installed. Takes no lock and changes nothing."""
        check = bool(message.get("check"))
        return installed.report(self.store, self.switch, self._keyring(), check)

    def trust(self, message: dict[str, Any]) -> dict[str, Any]:
        """Trust a key, and insist on signatures from now on."""
        self._open(message)
        name, key = str(message.get("name")), str(message.get("key"))
        live, keyring = self._live_artifact(), self._keyring()
        keyring.trust(name, key, live, bool(message.get("force")))
        self.switch.raise_floors()  # nothing older than what is installed from now on
        self._warn(keyring)
        return keyring.report()

    def revoke(self, message: dict[str, Any]) -> dict[str, Any]:
        """Refuse a key for ever."""
        self._open(message)
        keyring = self._keyring()
        force, new_list = bool(message.get("force")), bool(message.get("new_list"))
        keyring.revoke(str(message.get("key")), self._live_artifact(), force, new_list)
        return keyring.report()

    def accept_unsigned(self, message: dict[str, Any]) -> dict[str, Any]:
        """Turn enforcement off."""
        self._open(message)
        keyring = self._keyring()
        return {"was": keyring.off(), **keyring.report()}

    def downgrades(self, message: dict[str, Any]) -> dict[str, Any]:
        """Permit ``deploy --allow-downgrade``, or no longer."""
        self._open(message)
        keyring = self._keyring()
        keyring.downgrades(bool(message.get("permitted")))
        return keyring.report()

    # ---- parts -------------------------------------------------------------------------------

    def _keyring(self) -> Keyring:
        return Keyring(self.store, self.system)

    def _warn(self, keyring: Keyring) -> None:
        warning = keyring.warning()
        if warning is not None:
            self.store.warnings.append(warning)

    def _warn_of_noexec(self) -> None:
        mount = noexec_mount(self.store.root)
        if mount is not None:
            script = self.store.path(deployed.CURRENT, deployed.PYTHON)
            self.store.warnings.append(
                f"{mount} on the board is mounted noexec: the service runs, but {script} does not "
                f"start by itself: write `sh {script} PROGRAM`, remount it (`mount -o remount,exec "
                f"{mount}`), or deploy with --root elsewhere"
            )

    def _open(self, message: dict[str, Any]) -> None:
        self.store.prepare()
        self.store.unlock()
        self.store.lock(str(message.get("who", "unknown")))
        self.channel.idle_s = LOCKED_S
        self.switch.empty_trash()
        self.store.drop_bytecode()
        if message.get("op") != "begin" and self.store.is_short():
            self.store.drop_spare()
        unfinished = self.switch.unfinished()
        if unfinished is not None:
            self._settle(*unfinished, message)

    def _make_room(self, name: str) -> None:
        """Going back to ``name`` has to work on a full disk: what nobody needs goes first."""
        if not self.store.is_short():
            return
        clear_staging(self.store)
        if self.store.is_short():
            for removed in self.switch.collect(keep=2, also=name):
                self.store.warnings.append(f"the disk is full: {removed} was removed")

    def _settle(self, live: str, before: str | None, message: dict[str, Any]) -> None:
        """An earlier deploy died after the switch: confirm its release, or go back."""
        self._step("settle")
        try:
            fault = self._fault(live)
            if fault is not None:
                raise DeployError(fault)
            folder = self.store.release(live)
            admission = self._admission(live, message)
            made = signed_release.read_signature(folder)
            admission.check_list(whole.read_list(folder), made, live)
            admission.check_artifact(read_signed(os.path.join(folder, deployed.ARTIFACT)))
            alive(self._health_of(folder), message)
        except (TatvprError, OSError) as error:
            self.switch.go_back(live, before, str(error))
            self.store.warnings.append(
                f"an earlier deploy ended after its switch; {live} failed its health check and "
                f"{before or 'no release'} is live again: {error}"
            )
        else:
            self.switch.confirm(live, admission.serial, admission.list_serial)
            self.store.warnings.append(
                f"an earlier deploy ended after its switch; {live} is healthy and was confirmed"
            )
        self.cancellable = False  # nobody asks again
        service.restart_after_return(self.store)  # it may run the other one
        self.cancellable = True

    def _fault(self, name: str) -> str | None:
        """What is wrong with a release that was live. Where nothing is enforced the board may have
        compacted or pruned its map, which the health check reads."""
        return self.store.fault(name, own_map=self._keyring().trusted() is None)

    def _admission(self, name: str, message: dict[str, Any], judged: bool = False) -> Admission:
        """How the release ``name`` is judged."""
        trusted, older = self._keyring().trusted(), bool(message.get("allow_older"))
        return Admission(self.store.root, trusted, older, name, judged)

    def _check(
        self, folder: str, name: str, message: dict[str, Any], judged: bool = False
    ) -> Admission:
        """Signatures, every hash, the processor, the golden vectors."""
        self._step("signature")
        admission = self._admission(name, message, judged)
        made = self.signature or signed_release.read_signature(folder)
        table = admission.check_list(whole.read_list(folder), made, name)
        artifact = read_artifact(
            os.path.join(folder, deployed.ARTIFACT), None, admission.check_artifact
        )
        if table.stamp is not None and table.stamp.board != artifact.manifest.board:
            raise SignatureError(
                f"the release was signed for board {table.stamp.board}, and its artifact is for "
                f"{artifact.manifest.board}: sign it again"
            )
        check_processor(artifact.manifest, machine())
        self._step("golden")
        health = self._health_of(folder)
        health.golden(seconds(message, "golden_s", 300.0))
        if artifact.manifest.backends:
            self._step("finish")
            self.store.warnings.append(health.finish(seconds(message, "finish_s", 1800.0)))
        self._warn(self._keyring())
        return admission

    def _renew_signature(self, name: str) -> None:
        """A release that was here already has perhaps been signed by another key."""
        place = os.path.join(self.store.release(name), deployed.SIGNED)
        made = self.signature
        if made is not None and made != signed_release.read_signature(os.path.dirname(place)):
            self.store.replace(place, made)

    def _make_live(
        self, name: str, message: dict[str, Any], admission: Admission
    ) -> dict[str, Any]:
        """Make ``name`` live. The lowest serial never sinks: none judges what is live here."""
        units = service.check_units(message.get("restart", []))
        self._step("switch")
        self.cancellable = False  # from here on the agent finishes, whoever listens
        going = GoingLive(
            self.store, self.switch, self._health_of, self._step, self.python, self.keeps_map
        )
        return going.make(name, units, message, admission)

    def _health_of(self, folder: str) -> Health:
        return Health(self.store.root, folder, self.python, self._tick)

    def _live_artifact(self) -> Path | None:
        live = deployed.live_release(self.store.root)
        return live.artifact if live is not None else None


def _signature(message: dict[str, Any]) -> bytes | None:
    """The signature of the list that is announced; None: it is not signed."""
    made = message.get("signature")
    return None if made is None else str(made).encode("ascii")


def main(nonce: str, disk: Disk | None = None, system: Path | None = None) -> int:
    """Serve the connection on standard input and output; the exit status."""
    # Prints of others (and of children) must not fall between frames: output gets a private
    # descriptor, and standard output leads to standard error from now on.
    receive, send = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(2, 1)
    os.close(empty)
    for name in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(name, signal.SIG_IGN)
    os.umask(0o022)
    os.chdir("/")
    os.write(send, MAGIC + nonce.encode("ascii") + b"\n")
    channel = Channel(receive, send)
    return Agent(channel, disk if disk is not None else Disk(), system).serve()


if __name__ == "__main__":
    sys.exit("this file is sent to a board by `tatvpr-edge deploy`; it is not run by hand")
