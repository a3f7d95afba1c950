"""tools/seed_means.py: means over seeds and pooled differences, against NumPy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "seed_means.py"
KS = ("1.0", "0.4")


def record(
    queries: int,
    recall: list[float],
    binary: list[float],
    one: list[float],
    two: list[float],
) -> Any:
    def by_k(values: list[float]) -> dict[str, float]:
        return dict(zip(KS, values, strict=True))

    return {
        "queries": queries,
        "recall@1": by_k(recall),
        "binary": {"recall@1": by_k(binary)},
        "one_map": {"recall@1": by_k(one)},
        "two_bands": {"recall@1": by_k(two)},
    }


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True
    )


def cells(output: str, protocol: str, column: str) -> list[str]:
    for line in output.splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if parts[:2] == [protocol, column]:
            return parts[2:]
    raise AssertionError(f"no row {protocol}, {column}")


def test_means_and_differences_pooled_by_query(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    recall = rng.uniform(20, 80, (2, 3, 4, 2)).round(3)  # protocol, seed, column, k
    queries = (300, 100)
    files = []
    for seed in range(3):
        document = {
            "protocols": {
                name: {
                    f"seed{seed}": record(queries[p], *recall[p, seed].tolist()),
                    "baseline": {**record(9, *[[1, 1]] * 4), "recall@1": {"1.0": 50.0}},
                }
                for p, name in enumerate(("a", "b"))
            }
        }
        files.append(tmp_path / f"{seed}.json")
        files[-1].write_text(json.dumps(document))
    done = run(*files, "--model", "seed0", "--model", "seed1", "--model", "seed2")
    assert done.returncode == 0, done.stderr
    means = recall.mean(1)  # protocol, column, k
    found = float(cells(done.stdout, "a", "recall@1")[1].split()[0])
    assert found == pytest.approx(means[0, 0, 1], abs=0.051)
    weights = np.array(queries) / sum(queries)
    lost = float(weights @ (means[:, 0, 1] - means[:, 0, 0]))
    assert float(cells(done.stdout, "pooled", "recall@1 against k = 1")[1]) == pytest.approx(
        lost, abs=0.051
    )
    for column, title in ((2, "map at k = 1"), (3, "map of two bands")):
        lost = float(weights @ (means[:, column, 1] - means[:, 0, 0]))
        shown = cells(done.stdout, "pooled", f"{title} against k = 1")[1]
        assert float(shown) == pytest.approx(lost, abs=0.051)
    lost = float(weights @ (means[:, 1, 1] - means[:, 0, 1]))
    assert float(cells(done.stdout, "pooled", "binary against float")[1]) == pytest.approx(
        lost, abs=0.051
    )


def test_baselines_are_no_seeds_and_a_missing_seed_is_named(tmp_path: Path) -> None:
    flat = [10.0, 5.0]
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"protocols": {"a": {"m": record(4, *[flat] * 4)}, "b": {}}}))
    done = run(path)
    assert done.returncode == 1 and "m was not evaluated under b" in done.stderr
    path.write_text(json.dumps({"protocols": {"a": {"m": record(4, *[flat] * 4)}}}))
    assert run(path).stdout.startswith("1 seeds: m")
    other = record(4, *[flat] * 4)
    other["recall@1"] = {"0.9": 3.0, "0.8": 2.0}
    path.write_text(json.dumps({"protocols": {"a": {"m": record(4, *[flat] * 4), "n": other}}}))
    done = run(path)
    assert done.returncode == 1 and done.stderr == "error: n was evaluated at other k under a\n"


@pytest.mark.parametrize("text", ["", "[]", '{"protocols": {"a": {"m": {}}}}', '{"protocols": 3}'])
def test_another_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    done = run(path)
    assert done.returncode == 1
    assert "other.json" in done.stderr and "evaluate --json" in done.stderr
