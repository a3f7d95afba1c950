"""Profiling on a board: the deployed release measures itself, and answers over SSH with JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tatvpr_edge.deploy.command import deploy_line, live_manifest, run_on_board
from tatvpr_edge.deploy.naming import lead
from tatvpr_edge.deploy.transport import Transport
from tatvpr_edge.profile.document import check_document
from tatvpr_edge.runtime.profiling import Plan
from tatvpr_edge.runtime.profiling.measure import files_hash
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import ArtifactError, DataError, DeployError, UsageError
from tatvpr_edge.spec.manifest import Dials, parse_manifest
from tatvpr_edge.spec.text import parse_json

#: One query of the largest model on the slowest board, and what a setting takes for its energy.
_SLOWEST_S, _POWER_S = 3.0, 5.0


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
        UsageError: settings that a board cannot be told.
    """
    manifest = read_artifact(artifact).manifest
    words = _words(plan, manifest.frontier)
    wanted = files_hash(manifest)
    try:
        found = files_hash(parse_manifest(live_manifest(transport, root, python)))
    except ArtifactError as error:
        raise DeployError(f"{lead(transport.name)} its live release: {error}") from None
    # Before the minutes that it measures, not after them.
    if found != wanted:
        raise DeployError(
            f"{transport.name} runs another artifact than {artifact}: deploy it first "
            f"({deploy_line(transport, str(artifact), root, python)})"
        )
    answer = run_on_board(
        transport, words, root, python, on_artifact=True, limit_s=_limit_s(plan), tell=tell
    )
    try:
        document = check_document(parse_json(answer), f"the answer of {transport.name}")
    except (ValueError, DataError) as error:
        raise DeployError(f"{lead(transport.name)} its profile cannot be read ({error})") from None
    if document["artifact"].get("files_hash") != wanted:
        raise DeployError(f"{transport.name} was given another release meanwhile: profile again")
    return document


def _words(plan: Plan, frontier: Sequence[Dials]) -> list[str]:
    """What the board is told: every k at every part of the tokens, or nothing, and then it measures
    its artifact's ``frontier``, which need not be all of these."""
    ks = list(dict.fromkeys(setting.k for setting in plan.settings))
    tokens = list(dict.fromkeys(setting.tokens for setting in plan.settings))
    asked = {(setting.k, setting.tokens) for setting in plan.settings}
    words = ["profile"]
    if asked == set(product(ks, tokens)):
        words += ["--k", _listed(ks), "--tokens", _listed(tokens)]
    elif asked != {(dials.k, dials.tokens) for dials in frontier}:
        raise UsageError(
            "a board measures every k at every part of the tokens, or its artifact's frontier: "
            "these settings are neither"
        )
    words += ["--warmup", str(plan.warmup)]
    return [*words, "--repeats", str(plan.repeats), "--seconds", f"{plan.seconds:.9g}"]


def _listed(fractions: Sequence[float]) -> str:
    return ",".join(f"{fraction:.9g}" for fraction in fractions)


def _limit_s(plan: Plan) -> float:
    """Ten times as long as a slow board takes, so that one that never ends holds nobody."""
    each_s = max(plan.seconds, _POWER_S) + _SLOWEST_S * (plan.warmup + plan.repeats)
    return 600 + 10 * len(plan.settings) * each_s
