"""``python -m tatvpr_edge.runtime profile``: a board measures an artifact and prints JSON.

Without an artifact, the deployed one. ``tatvpr-edge profile --on`` runs this over SSH.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from tatvpr_edge.runtime.default import default_artifact
from tatvpr_edge.runtime.profiling import Plan, Setting, profile_artifact
from tatvpr_edge.spec.errors import TatvprError, UsageError

__all__ = ["main", "settings_from_text"]


def settings_from_text(ks: str, tokens: str = "1") -> tuple[Setting, ...]:
    """Every k with every tokens: ``"1,.6"`` and ``"1,.5"`` are four settings.

    Raises:
        UsageError: a word that is no number; `Plan` checks the ranges.
    """
    try:
        return tuple(
            Setting(float(k), float(part)) for part in tokens.split(",") for k in ks.split(",")
        )
    except ValueError:
        raise UsageError(
            f"k {ks!r} and tokens {tokens!r}: write fractions with commas, such as 1,.6,.4,.2"
        ) from None


def main(argv: list[str]) -> int:
    """Exit status 0, 1 (refused) or 2 (usage)."""
    parser = argparse.ArgumentParser(prog="python -m tatvpr_edge.runtime profile")
    parser.add_argument("artifact", nargs="?", help="folder (default: the deployed release's)")
    parser.add_argument("--k", default="1,.6,.4,.2")
    parser.add_argument("--tokens", default="1")
    parser.add_argument("--warmup", type=int, default=Plan.warmup)
    parser.add_argument("--repeats", type=int, default=Plan.repeats)
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--backend")
    arguments = parser.parse_args(argv)
    try:
        plan = Plan(
            settings_from_text(arguments.k, arguments.tokens),
            warmup=arguments.warmup,
            repeats=arguments.repeats,
            seconds=arguments.seconds,
        )
        artifact = arguments.artifact or default_artifact()[0]
        document: dict[str, Any] = profile_artifact(
            artifact,
            plan,
            progress=lambda what, done, of: print(f"{what} ({done}/{of})", file=sys.stderr),
            backend=arguments.backend,
            threads=arguments.threads,
        )
    except (TatvprError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(document, allow_nan=False))
    return 0
