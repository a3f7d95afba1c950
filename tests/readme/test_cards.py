"""Figures of recall on the pages are those of the shipped models' cards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tatvpr_edge import zoo

KS = ("1.0", "0.6", "0.4", "0.2")
#: Columns of the tables in docs/evaluation.md, from R@1 on, as the cards call them.
COLUMNS = (
    *("float", "Recall@5, float", "within 6 frames, float", "binary", "weighed"),
    "map at k = 1, float",
)


def recall(model: str, protocol: str, row: str) -> dict[str, float]:
    found: dict[str, float] = zoo.card(model)["recall"][protocol][row]
    return found


def lost(protocol: str, row: str, ks: tuple[str, ...], against: str = "") -> list[float]:
    """Points that ``micro`` loses by ``row`` at each k: against float at it, or at ``against``."""
    whole, less = recall("micro", protocol, "float"), recall("micro", protocol, row)
    return [round(whole[against or k] - less[k], 1) for k in ks]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d*\.?\d+", text)]


def one(pattern: str, text: str) -> list[float]:
    (found,) = re.findall(pattern, text)
    return numbers(" ".join(found) if isinstance(found, tuple) else found)


@pytest.mark.parametrize("model", zoo.names())
def test_the_tables_of_evaluation(project_root: Path, model: str) -> None:
    page = (project_root / "docs" / "evaluation.md").read_text()
    compared = 0
    for protocol, table in re.findall(r"\n\| ([a-z-]+)[^|]*\| k \|.*\n((?:\|.*\n)+)", page):
        for k, row in re.findall(rf"\| {model} \| ([\d.]+) \| (.*)\n", table):
            for name, cell in zip(COLUMNS, row.split(" | "), strict=False):
                if cell != "-":
                    assert recall(model, protocol, name)[str(float(k))] == float(cell), (k, name)
                    compared += 1
    assert compared == 4 * (6 + 5 + 5)


def test_what_a_smaller_map_or_a_lower_dial_costs(project_root: Path) -> None:
    page = (project_root / "docs" / "placemap.md").read_text()
    shift, dials = "tower-shift", ("1.0", "0.4", "0.2")
    for kind in ("weighed", "binary"):
        assert one(rf"\| `{kind}` \|.*\| (.*) points fewer", page) == lost(shift, kind, dials)
    one_map = "map at k = 1, float"
    assert one(r"`micro` loses (.*) points of tower", page) == lost(shift, one_map, KS[1:], "1.0")
    aims = (project_root / "docs" / "evaluation.md").read_text()
    for place, end in ((shift, "there"), ("rendered", "on rendered")):
        assert f"{', '.join(f'{x:.1f}' for x in lost(place, 'float', KS[1:3], '1.0'))} and " in aims
        (deepest,) = lost(place, "float", KS[3:], "1.0")
        assert f"and {deepest:.1f} {end}" in aims
    pairs = {
        r"3\.5 at k = \.2: ([\d.]+), and ([\d.]+) on": (one_map, "0.2", "1.0"),
        r"Binary at most 2: ([\d.]+) and ([\d.]+) at": ("binary", "1.0", ""),
        r"weighed ([\d.]+) and ([\d.]+)\. ": ("weighed", "1.0", ""),
    }
    for pattern, (row, k, against) in pairs.items():
        wanted = [lost(place, row, (k,), against)[0] for place in (shift, "rendered")]
        assert one(pattern, aims) == wanted, pattern


@pytest.mark.parametrize("model", zoo.names())
def test_the_table_of_the_front_page(project_root: Path, model: str) -> None:
    page = (project_root / "README.md").read_text()
    (row,) = re.findall(rf"^\| \[`{model}`\]\(.*?\), (.*) \|$", page, re.M)
    shift, half = recall(model, "tower-shift", "float"), "half the tokens, map at k = 1 with all"
    changed = "gray queries", "a fifth of the light, noise", "a third of the frame hidden"
    card = zoo.card(model)
    assert [numbers(cell) for cell in row.split(" | ")] == [
        [card["model_mb"]],
        [shift[k] for k in KS],
        [recall(model, "tower-shift", f"{half}, float")[k] for k in ("1.0", "0.4")],
        [recall(model, "tower-shift, queries changed", name)["1.0"] for name in changed],
        [recall(model, "rendered", "float")["1.0"]],
        [round(card["macs"][k] / 1e6, 1) for k in ("1.0", "0.2")],
    ]
