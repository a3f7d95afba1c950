"""Mean recall over training seeds, and what low k, one map and binary descriptors cost.

    tatvpr-edge evaluate --model SEED0 --model SEED1 --model SEED2 ... --json > seeds.json
    python tools/seed_means.py seeds.json [more.json ...] [--model NAME ...]

Every model of the files that was evaluated at more than one k counts as a seed, unless ``--model``
names some. Besides each protocol by itself, the differences are given pooled over all protocols
that have a rule for single queries: each protocol weighs as much as it has queries.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from given import one_line

from tatvpr_edge.spec.errors import DataError

#: What is averaged: a title, and where a model's record has it.
COLUMNS: dict[str, tuple[str, ...]] = {
    "recall@1": ("recall@1",),
    "map at k = 1": ("one_map", "recall@1"),
    "map of two bands": ("two_bands", "recall@1"),
    "binary": ("binary", "recall@1"),
}


def read_protocols(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Protocol -> model -> record, of several evaluations.

    Raises:
        DataError: a file is not what ``evaluate --json`` prints.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            for name, models in document["protocols"].items():
                of_protocol = found.setdefault(name, {})
                for model, record in models.items():
                    if not {"recall@1", "one_map", "two_bands", "binary", "queries"} <= set(record):
                        raise KeyError(f"recall of {model} under {name}")
                    of_protocol[model] = record
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{path}: not what tatvpr-edge evaluate --json prints ({error!r})"
            ) from error
    return found


def seeds_of(protocols: dict[str, dict[str, Any]], wanted: Sequence[str]) -> list[str]:
    """The models that count as seeds; each must stand under every protocol.

    Raises:
        DataError: none, or one is missing somewhere.
    """
    first = next(iter(protocols.values()), {})
    names = list(wanted) or [name for name, record in first.items() if len(record["recall@1"]) > 1]
    if not names:
        raise DataError("no model was evaluated at more than one k: name some with --model")
    for protocol, models in protocols.items():
        for name in names:
            if name not in models:
                raise DataError(f"{name} was not evaluated under {protocol}")
            if models[name]["recall@1"].keys() != first[names[0]]["recall@1"].keys():
                raise DataError(f"{name} was evaluated at other k under {protocol}")
    return names


def _value(record: dict[str, Any], column: str, k: str) -> float:
    for key in COLUMNS[column]:
        record = record[key]
    return float(record[k])  # type: ignore[arg-type]


def lines_of(protocols: dict[str, dict[str, Any]], names: Sequence[str]) -> Iterator[str]:
    """The table, in Markdown."""
    ks = list(protocols[next(iter(protocols))][names[0]]["recall@1"])
    dense = ks[0]
    yield f"{len(names)} seeds: {', '.join(names)}"
    yield ""
    yield "| protocol | | " + " | ".join(f"k = {k}" for k in ks) + " |"
    yield "|---" * (2 + len(ks)) + "|"
    pooled: dict[tuple[str, str], float] = {}
    queries = 0
    for protocol, models in protocols.items():
        records = [models[name] for name in names]
        count = int(records[0]["queries"])
        queries += count
        for column in COLUMNS:
            cells = []
            for k in ks:
                each = [_value(record, column, k) for record in records]
                listed = ", ".join(f"{value:.1f}" for value in each)
                cells.append(f"{statistics.fmean(each):.1f} ({listed})")
                # Binary descriptors are compared at their own k, everything else with k = 1.
                other = k if column == "binary" else dense
                against = [_value(record, "recall@1", other) for record in records]
                lost = statistics.fmean(each) - statistics.fmean(against)
                pooled[column, k] = pooled.get((column, k), 0.0) + count * lost
            yield f"| {protocol} | {column} | " + " | ".join(cells) + " |"
    for column in COLUMNS:
        what = "float" if column == "binary" else "k = 1"
        cells = [f"{pooled[column, k] / queries:+.1f}" for k in ks]
        yield f"| pooled | {column} against {what} | " + " | ".join(cells) + " |"


@one_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="what evaluate --json printed")
    parser.add_argument("--model", action="append", default=[], help="a seed; repeat it")
    chosen = parser.parse_args(arguments)
    protocols = read_protocols(chosen.files)
    print("\n".join(lines_of(protocols, seeds_of(protocols, chosen.model))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
