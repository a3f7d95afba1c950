"""Deploy against scp: the same bytes, the same sshd on loopback, in the same run.

    python tools/bench_deploy.py [--megabytes 64] [--rounds 3] [--check]

Builds ``micro`` for this machine, adds random bytes to its artifact, starts an sshd of its own with
the sftp-server that Debian configures, and times by turns ``scp -r`` of the artifact and a first
deploy to an empty install root. Printed for each: seconds until all bytes are sent (the login
included), and apart from it what deploy does then (sync, hash, golden vectors, switch, health).
``--check`` fails beyond 1.3 x scp, or when a second deploy of the same artifact sends 64 kB or
more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from given import one_line, tool_parser, whole

from tatvpr_edge import build
from tatvpr_edge.deploy.push import Options, deploy
from tatvpr_edge.deploy.transport import SshTransport
from tatvpr_edge.spec.artifact import read_artifact, write_artifact

FACTOR, AGAIN_BYTES = 1.3, 64_000
#: Where distributions put it; boards run it, through the user's shell, for each scp.
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")


@contextlib.contextmanager
def loopback_sshd(folder: Path) -> Iterator[tuple[int, Path]]:
    """An sshd with its own keys on 127.0.0.1: (port, the client's configuration)."""
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    shutil.copy(folder / "user.pub", folder / "authorized")
    sftp = next((path for path in SFTP_SERVERS if os.path.exists(path)), None)
    if sftp is None:
        sys.exit("error: sftp-server is missing: apt-get install openssh-sftp-server")
    home = folder / "home"  # empty: what a login shell reads here would be timed, twice
    home.mkdir()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nUsePAM no\nStrictModes no\n"
        f"PasswordAuthentication no\nSubsystem sftp {sftp}\nSetEnv HOME={home}\n"
    )
    key = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"bench {key}")
    config = folder / "config"
    config.write_text(
        f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  HostKeyAlias bench\n"
        f"  UserKnownHostsFile {folder}/known\n"
    )
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        sys.exit("error: sshd is missing: apt-get install openssh-server")
    if os.geteuid() == 0:  # root's sshd wants a place to lock its children in
        os.makedirs("/run/sshd", exist_ok=True)
    command = [program, "-D", "-f", str(folder / "sshd_config")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield port, config
    finally:
        process.terminate()
        process.wait()


def large_artifact(folder: Path, megabytes: int) -> Path:
    """``micro`` for this machine with so many random bytes beside it."""
    small = read_artifact(build("host", output=folder / "small"))
    members: dict[str, bytes | str | Path] = {
        entry.path: small.path(entry.path) for entry in small.manifest.files
    }
    members["payload.bin"] = os.urandom(megabytes * 1_000_000)
    return write_artifact(folder / "large", small.manifest, members).root


@one_line
def main() -> int:
    """Run the benchmark; exit status 1 where ``--check`` fails."""
    parser = tool_parser(__doc__)
    parser.add_argument("--megabytes", type=whole(1, 65536), default=64)
    parser.add_argument("--rounds", type=whole(1), default=3)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-deploy-") as name:
        folder = Path(name)
        artifact = large_artifact(folder, arguments.megabytes)
        with loopback_sshd(folder) as (port, config):
            return compare(folder, artifact, port, config, arguments)


def compare(
    folder: Path, artifact: Path, port: int, config: Path, arguments: argparse.Namespace
) -> int:
    """Time both by turns and print the medians."""
    transport = SshTransport("127.0.0.1", port, str(config), batch=True)
    copy = ["scp", "-q", "-r", "-F", str(config), "-P", str(port), str(artifact)]
    scp_s, sent_s, verify_s, again_bytes = [], [], [], []
    for number in range(arguments.rounds):
        os.sync()  # neither pays for what the other has left to be written
        started = time.monotonic()
        subprocess.run([*copy, f"127.0.0.1:{folder}/copy{number}"], check=True)
        scp_s.append(time.monotonic() - started)
        options = Options(
            root=str(folder / f"root{number}"), python=shlex.quote(sys.executable), settle_s=0.5
        )
        os.sync()
        done = deploy(transport, artifact, None, options)
        sent_s.append(done.connect_s + done.transfer_s)
        verify_s.append(done.verify_s)
        again_bytes.append(deploy(transport, artifact, None, options).sent_bytes)
        print(
            f"round {number + 1}: scp {scp_s[-1]:.2f} s, deploy {sent_s[-1]:.2f} s "
            f"(login and hello {done.connect_s:.2f} s), then verified in {verify_s[-1]:.2f} s; "
            f"second deploy sent {again_bytes[-1]} bytes",
            flush=True,
        )
    scp, sent = statistics.median(scp_s), statistics.median(sent_s)
    allowed = FACTOR * scp
    print(
        f"{arguments.megabytes} MB over loopback, median of {arguments.rounds}: scp {scp:.2f} s, "
        f"deploy {sent:.2f} s = {sent / scp:.2f} x scp "
        f"(limit {allowed:.2f} s = {FACTOR} x scp), "
        f"verification apart {statistics.median(verify_s):.2f} s, "
        f"second deploy {max(again_bytes)} bytes (limit {AGAIN_BYTES})"
    )
    good = sent <= allowed and max(again_bytes) < AGAIN_BYTES
    return 0 if good or not arguments.check else 1


if __name__ == "__main__":
    sys.exit(main())
