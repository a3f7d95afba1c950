"""A board for deploy tests: a real sshd on loopback, artifacts to send, and a small runtime.

The artifacts are whole and signed like any other; their code is opaque bytes. The runtime that
travels with them is a few lines of standard library that answers as ``python -m
tatvpr_edge.runtime`` does and fails on request (a file ``behaviour`` in the artifact says how), so
that hundreds of faults take seconds. The real runtime is deployed in ``test_deploy_real.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.tools import require_tool
from tatvpr_edge.deploy.push import Options
from tatvpr_edge.deploy.session import agent_modules
from tatvpr_edge.deploy.transport import LocalTransport, SshTransport
from tatvpr_edge.spec.artifact import Artifact, write_artifact
from tatvpr_edge.spec.manifest import Code, Golden, GoldenFrame, GoldenPoint, Manifest, ModelEntry

#: What ``python -m tatvpr_edge.runtime`` does in these tests. ``behaviour`` in the artifact holds
#: words: golden-fails, golden-crashes, golden-hangs, no-service, service-hangs, service-wrong,
#: service-dies, service-fat, service-leaks, service-opens-N (once), query-fails; verify=PROGRAM and
#: serve=PROGRAM run that first, as the board's own programs go on meanwhile.
SMALL_RUNTIME = """
import json, os, signal, socket, struct, sys, threading, time
words = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))
def behaviour(artifact):
    with open(os.path.join(artifact, "behaviour.txt")) as source:
        how = source.read().split()
    for word in how:
        if word.startswith(words[0] + "="):
            os.system(word.partition("=")[2])
    return how
if words[0] == "verify":
    how = behaviour(words[1])
    if "golden-crashes" in how:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "golden-hangs" in how:
        time.sleep(600)
    if "golden-fails" in how:
        print(json.dumps({"golden": "failed"}))
        sys.exit("golden vectors at k = 0.2 differ")
    print(json.dumps({"golden": "passed"}))
elif words[0] == "serve":
    root = words[words.index("--root") + 1]
    path = words[words.index("--socket") + 1]
    how = behaviour(os.path.join(root, "current", "artifact"))
    if "no-service" in how:
        sys.exit("Localizer: the library does not load")
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    asked = 0
    leaked = []
    while True:
        connection, _ = listener.accept()
        length, blob = struct.unpack(">II", connection.recv(8, socket.MSG_WAITALL))
        request = json.loads(connection.recv(length, socket.MSG_WAITALL))
        connection.recv(blob, socket.MSG_WAITALL) if blob else b""
        asked += 1
        if "service-hangs" in how:
            time.sleep(600)
        if "service-dies" in how and asked > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if "service-leaks" in how:
            leaked += [os.dup(1) for _ in range(5)]
        if asked == 2 and "service-opens-" in "".join(how):
            leaked += [os.dup(1) for _ in range(int("".join(how)[-1]))]
        wrong = "service-wrong" in how or (request["op"] == "query" and "query-fails" in how)
        answer = {"ok": not wrong, "error": "descriptors differ",
                  "latency_ms": 1.0, "promised_bytes": 1000, "descriptors": 5 + len(leaked),
                  "grown_bytes": 2**33 if "service-fat" in how else 1000}
        data = json.dumps(answer).encode()
        connection.sendall(struct.pack(">II", len(data), 0) + data)
        connection.close()
"""
DESCRIPTOR = 8


def make_artifact(
    folder: Path,
    content: bytes = b"one",
    behaviour: str = "",
    board: str = "host",
    files: dict[str, bytes] | None = None,
    triple: str = f"{platform.machine()}-linux-gnu",
    kind: str = "shared-library",
    side: int = 2,
) -> Artifact:
    """A whole artifact whose model is ``content``; its golden frame is a square."""
    frame = bytes(index % 256 for index in range(3 * side * side))
    manifest = Manifest(
        board=board,
        model=ModelEntry(
            name="micro",
            hash=hashlib.sha256(content).hexdigest(),
            head="cls",
            descriptor_size=DESCRIPTOR,
            image_size=16,
            token_dim=8,
            max_tokens=5,
        ),
        code=Code(kind, "lib/libmodel.so", triple),
        created_with="tatvpr-edge tests",
        memory={"arena_bytes": 1000},
        compute=({"k": 1.0, "tokens": 1.0, "macs": 1.0},),
        golden=Golden(
            frames=(GoldenFrame("golden/frame.rgb", side, side),),
            points=(GoldenPoint(0.2, 1.0, "golden/k0.2.f32", 0.99),),
        ),
    )
    members = {
        "lib/libmodel.so": b"\x7fELF" + content * 100,
        "weights.bin": hashlib.sha256(b"weights" + content).digest() * 500,
        "golden/frame.rgb": frame,
        "golden/k0.2.f32": bytes(4 * DESCRIPTOR),
        "behaviour.txt": behaviour.encode() + b"\n",
        **(files or {}),
    }
    return write_artifact(folder, manifest, members)


def inventory(folder: Path, wheel: Path, bad: str = "") -> Path:
    """Five boards on this machine, one of which may carry a bad artifact."""
    make_artifact(folder / "good", b"good")
    make_artifact(folder / "bad", b"bad", "service-wrong")
    lines = ['artifact = "good"']
    for name in ("one", "two", "three", "four", "five"):
        lines += ["[[board]]", 'host = "local:"', f'root = "{folder}/{name}"']
        if name == "two":
            lines.append("canary = true")
        if name == bad:
            lines.append('artifact = "bad"')
    path = folder / "boards.toml"
    path.write_text("\n".join(lines))
    return path


def make_wheel(folder: Path, version: str = "0.1.0", runtime: str = SMALL_RUNTIME) -> Path:
    """A wheel with the small runtime."""
    path = folder / f"tatvpr_edge-{version}-py3-none-any.whl"
    members = {
        "tatvpr_edge/__init__.py": f'__version__ = "{version}"\n',
        "tatvpr_edge/runtime/__init__.py": "",
        "tatvpr_edge/runtime/__main__.py": runtime,
        f"tatvpr_edge-{version}.dist-info/METADATA": f"Name: tatvpr-edge\nVersion: {version}\n",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in members.items():
            wheel.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return path


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Sshd:
    """A running sshd and the client's side of it."""

    folder: Path
    port: int
    config: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def transport(self, port: int | None = None, **options: object) -> SshTransport:
        """A transport to it; ``port`` may be a proxy's."""
        return SshTransport(
            "127.0.0.1", port=port or self.port, config=str(self.config), batch=True, **options
        )


@contextlib.contextmanager
def running_sshd(
    folder: Path, command: str | None = None, also: tuple[str, ...] = ()
) -> Iterator[Sshd]:
    """Start an sshd of our own on loopback and end it by its pid.

    Args:
        also: further addresses of this machine to listen at.
        folder: for its keys, configuration and log; a new one.
        command: a program that every login runs instead of what it asks for (ForceCommand).
    """
    sshd = require_tool("sshd", "openssh-server")
    require_tool("ssh", "openssh-client")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    port = free_port()
    settings = [
        f"Port {port}",
        *(f"ListenAddress {address}" for address in ("127.0.0.1", *also)),
        f'HostKey "{folder}/host_key"',
        f'PidFile "{folder}/sshd.pid"',
        f'AuthorizedKeysFile "{folder}/authorized_keys"',
        "UsePAM no",
        "PasswordAuthentication no",
        "StrictModes no",
        "PermitRootLogin yes",
        "MaxStartups 100:30:200",
        "Subsystem sftp internal-sftp",
    ]
    if command is not None:
        settings.append(f"ForceCommand {command}")
    (folder / "sshd_config").write_text("\n".join(settings) + "\n")
    key = (folder / "host_key.pub").read_text()
    known = folder / "known_hosts"
    known.write_text(f"tatvpr-test-board {key}")
    config = folder / "ssh_config"
    config.write_text(
        "Host *\n"
        f'  IdentityFile "{folder}/user_key"\n  IdentitiesOnly yes\n  IdentityAgent none\n'
        f'  UserKnownHostsFile "{known}"\n  GlobalKnownHostsFile none\n'
        "  HostKeyAlias tatvpr-test-board\n"
    )
    if os.geteuid() == 0:  # root's sshd wants a place to lock its children in
        os.makedirs("/run/sshd", exist_ok=True)
    with open(folder / "sshd.log", "wb") as log:
        process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / "sshd.log").read_text()
            time.sleep(0.02)
        yield Sshd(folder, port, config, process)
    finally:
        process.terminate()
        process.wait()


def system_folder(root: Path | str) -> Path:
    """The machine's own folder (elsewhere /etc/tatvpr-edge) of the board with this install root."""
    return Path(f"{root}.etc")


def board_modules(root: Path | str, machine: bool = False) -> list[tuple[str, str]]:
    """The agent, on a board of its own: no test reads or writes this machine's /etc.

    ``machine``: the user there may write the machine's folder, as root may; else only the root.
    """
    modules = agent_modules()
    place = [name for name, _ in modules].index("tatvpr_edge.runtime.trust")
    system = str(system_folder(root) if machine else Path("/dev/null/tatvpr-edge"))
    modules[place] = (modules[place][0], modules[place][1] + f"\nSYSTEM = Path({system!r})\n")
    return modules


def quick_options(root: Path | str, wheel: Path | None = None, **changes: object) -> Options:
    """Options for tests: this Python on the board, short limits."""
    settings: dict[str, object] = {
        "root": str(root),
        "python": shlex.quote(sys.executable),
        "wheel": wheel,
        "golden_s": 60.0,
        "health_s": 60.0,
        "settle_s": 0.02,
        "modules": board_modules(root),
        **changes,
    }
    return Options(**settings)  # type: ignore[arg-type]


def live_content(root: Path) -> str | None:
    """What is live below ``root``, every byte checked against the lists that came with it: the
    model's hash, or None where nothing is live. Independent of the code under test.

    Raises:
        AssertionError: what is live is not whole.
    """
    current = root / "current"
    if not os.path.lexists(current):
        return None
    assert current.is_symlink(), "current is not a link"
    release = current.resolve(strict=True)
    assert release.parent == root.resolve() / "releases", release
    listed = json.loads((release / "release.json").read_text())["files"]
    for path, size, digest, _ in listed:
        data = (release / path).read_bytes()
        assert len(data) == size and hashlib.sha256(data).hexdigest() == digest, path
    manifest = json.loads((release / "artifact" / "manifest.json").read_text())
    names = {row[0] for row in listed}
    for entry in manifest["files"]:
        data = (release / "artifact" / entry["path"]).read_bytes()
        assert "artifact/" + entry["path"] in names
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["path"]
    found = {
        p.relative_to(release).as_posix()
        for p in release.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    } - {"release.sig"}
    assert found == names | {"release.json"}, found ^ (names | {"release.json"})
    model: str = manifest["model"]["hash"]
    return model


def unit_of(text: str) -> tuple[dict[str, str], list[str]]:
    """What systemd starts: the environment, and the words of the command."""
    said: dict[str, list[list[str]]] = {"Environment": [], "ExecStart": []}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key in said:
            said[key].append([word.replace("\\n", "\n") for word in shlex.split(value)])
    environment = dict(word.split("=", 1) for (word,) in said["Environment"])
    words = said["ExecStart"][0]
    return environment, [word.replace("$$", "$").replace("%%", "%") for word in words]


def local_transport() -> LocalTransport:
    """This machine without SSH: for what has nothing to do with the network."""
    return LocalTransport()


def hash_of(artifact: Artifact) -> str:
    """What ``live_content`` says where this artifact is live."""
    return artifact.manifest.model.hash


def deployed(root: Path, artifact: Path) -> None:
    """What a deploy leaves: current -> releases/ID with the artifact."""
    (root / "releases/one").mkdir(parents=True)
    (root / "releases/one/artifact").symlink_to(artifact)
    (root / "current").symlink_to("releases/one")
