"""``python -m tatvpr_edge.runtime profile``: a board measures an artifact and prints JSON.

Without an artifact, the deployed one. ``tatvpr-edge profile --on`` runs this over SSH.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime.commandline import Parser
from tatvpr_edge.runtime.default import default_artifact
from tatvpr_edge.runtime.profiling import Plan, Setting, profile_artifact
from tatvpr_edge.spec.artifact import read_manifest
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.limits import check_k, default_ks


def fractions_from_text(text: str | None) -> list[float] | None:
    """``"1,.6"`` as numbers; `Plan` checks their range. None stays None.

    Raises:
        UsageError: a word that is no number.
    """
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"{text!r}: write fractions with commas, such as 1,.6,.4,.2") from None


def settings_for(
    artifact: str | Path, ks: Sequence[float] | None, tokens: Sequence[float] | None
) -> tuple[Setting, ...]:
    """What is measured of ``artifact``: as told, else its own frontier, else four k,
    or those of them that it was built for.

    Raises:
        ArtifactError: no artifact there.
        UsageError: a k that it was not built for.
    """
    manifest = read_manifest(artifact)
    if ks is None and tokens is None and manifest.frontier:
        return tuple(Setting(dials.k, dials.tokens) for dials in manifest.frontier)
    # A k that is refused is refused before the minutes that the others take.
    measured = (
        default_ks(manifest.k_range)[::-1]
        if ks is None
        else [check_k(k, manifest.k_range) for k in ks]
    )
    return tuple(Setting(k, part) for part in tokens or (1.0,) for k in measured)


def main(argv: list[str]) -> int:
    """Exit status 0; raises what is refused, and wrong usage exits with 2."""
    parser = Parser("python -m tatvpr_edge.runtime profile")
    parser.add_argument("artifact", nargs="?", help="folder (default: the deployed release's)")
    parser.add_argument("--k", help="default: the artifact's frontier, or four")
    parser.add_argument("--tokens", help="default: as --k, else 1")
    parser.add_argument("--warmup", type=int, default=Plan.warmup)
    parser.add_argument("--repeats", type=int, default=Plan.repeats)
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--backend")
    arguments = parser.parse_args(argv)
    artifact = arguments.artifact or default_artifact()[0]
    plan = Plan(
        settings_for(
            artifact, fractions_from_text(arguments.k), fractions_from_text(arguments.tokens)
        ),
        warmup=arguments.warmup,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
    )
    document: dict[str, Any] = profile_artifact(
        artifact,
        plan,
        progress=lambda what, done, of: print(f"{what} ({done}/{of})", file=sys.stderr),
        backend=arguments.backend,
        threads=arguments.threads,
    )
    print(json.dumps(document, allow_nan=False))
    return 0
