"""Profiling on a board: the deployed release measures itself, and answers over SSH with JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tatvpr_edge.deploy.transport import Transport
from tatvpr_edge.profile.document import check_document
from tatvpr_edge.runtime.profiling import Plan
from tatvpr_edge.runtime.profiling.measure import files_hash
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import DataError, DeployError

__all__ = ["profile_on"]

_MAX_ANSWER_BYTES = 64 << 20


def profile_on(
    transport: Transport,
    artifact: str | Path,
    plan: Plan,
    root: str | None = None,
    python: str = "python3",
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The profile document of the board's live release, which has to be ``artifact``.

    Args:
        root: the install root on the board; its own rule when None.
        python: the board's Python, for a release without a runtime of its own.

    Raises:
        DeployError: the board cannot be reached, has no release, or runs another artifact.
        ArtifactError: ``artifact`` is not whole.
    """
    wanted = read_artifact(artifact)
    link = transport.start(_command(plan, root, python))
    answer = b""
    try:
        while len(answer) <= _MAX_ANSWER_BYTES and (piece := link.receive.read(65536)):
            answer += piece
    finally:
        status = link.close(30)
    said = link.said()
    if status != 0:
        raise DeployError(_why(transport, status, said))
    for line in said.splitlines():
        tell(line)
    # A login shell may have greeted us before: the document is the last line.
    last = answer.decode("utf-8", "replace").strip().rpartition("\n")[2]
    try:
        document = check_document(json.loads(last), f"the answer of {transport.name}")
    except (ValueError, DataError) as error:
        raise DeployError(f"{transport.name}: its profile cannot be read ({error})") from None
    if document["artifact"].get("files_hash") != files_hash(wanted):
        raise DeployError(
            f"{transport.name} runs another artifact than {artifact}: deploy it first "
            f"(tatvpr-edge deploy {shlex.quote(str(artifact))} {transport.name})"
        )
    return document


def _command(plan: Plan, root: str | None, python: str) -> str:
    """One line for the board's shell: the release's own Python where it has one."""
    where = '"${TATVPR_EDGE_ROOT:-$HOME/.local/share/tatvpr-edge}"'
    if root is not None:
        where = '"$HOME"/' + shlex.quote(root[2:]) if root.startswith("~/") else shlex.quote(root)
    ks = ",".join(f"{k:.9g}" for k in dict.fromkeys(setting.k for setting in plan.settings))
    tokens = ",".join(f"{t:.9g}" for t in dict.fromkeys(s.tokens for s in plan.settings))
    arguments = (
        f"-m tatvpr_edge.runtime profile --k {ks} --tokens {tokens} --warmup {plan.warmup} "
        f"--repeats {plan.repeats} --seconds {plan.seconds:.9g}"
    )
    fallback = " ".join(shlex.quote(word) for word in shlex.split(python))
    return (
        f'r={where}; if [ ! -e "$r/current/artifact" ]; then '
        'echo "error: nothing is deployed below $r" >&2; exit 1; fi; '
        f'if [ -x "$r/current/python" ]; then p="$r/current/python"; else p=; fi; '
        f'if [ -n "$p" ]; then "$p" {arguments} "$r/current/artifact"; '
        f'else {fallback} {arguments} "$r/current/artifact"; fi'
    )


def _why(transport: Transport, status: int, said: str) -> str:
    explained = transport.explain(said)
    if explained is not None:
        return explained
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-1].removeprefix("error: ") if lines else "nothing said"
    if "nothing is deployed" in last:
        return f"{transport.name}: {last}: run 'tatvpr-edge deploy' first"
    return f"{transport.name}: profiling failed with exit status {status}: {last}"
