"""What a profile is written as: JSON, CSV, the manifest's part, a trace for Perfetto."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tatvpr_edge.cli.profile import _print
from tatvpr_edge.compilers.governor import host_governor
from tatvpr_edge.profile.document import (
    add_recall,
    check_document,
    manifest_profile,
    read_document,
    read_recall,
    to_csv,
)
from tatvpr_edge.profile.report import to_html
from tatvpr_edge.profile.trace import to_trace
from tatvpr_edge.runtime.governor import ladder_from_profile
from tatvpr_edge.spec.errors import DataError

Make = Callable[..., dict[str, Any]]


def check_trace(trace: dict[str, Any]) -> None:
    """The rules of the Trace Event Format that Perfetto's importer holds to."""
    assert isinstance(trace["traceEvents"], list)
    assert trace["displayTimeUnit"] in ("ms", "ns")
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in trace["traceEvents"]:
        assert event["ph"] in ("X", "C", "M")
        assert isinstance(event["name"], str) and event["name"]
        assert isinstance(event["ts"], (int, float)) and event["ts"] >= 0
        assert isinstance(event["pid"], int)
        if event["ph"] == "X":
            assert isinstance(event["tid"], int)
            assert event["dur"] >= 0
            tracks.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["dur"]))
        elif event["ph"] == "C":
            assert all(isinstance(value, (int, float)) for value in event["args"].values())
        else:
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
    for spans in tracks.values():  # complete events of one track nest, or follow each other
        open_until: list[float] = []
        for start, took in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_until and open_until[-1] <= start + 0.01:
                open_until.pop()
            assert not open_until or start + took <= open_until[-1] + 0.01
            open_until.append(start + took)


def test_the_trace_is_valid_for_perfetto(make_document: Make) -> None:
    document = make_document()
    trace = json.loads(json.dumps(to_trace(document), allow_nan=False))
    check_trace(trace)
    names = [event["name"] for event in trace["traceEvents"]]
    assert names.count("describe k=0.2") == 10
    assert names.count("blocks.3.attn") == len(document["points"])
    power = [e for e in trace["traceEvents"] if e["ph"] == "C"]
    assert len(power) == len(document["power"])


def test_the_check_of_traces_can_fail(make_document: Make) -> None:
    trace = to_trace(make_document())
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    spans[1]["ts"] = spans[0]["ts"] + spans[0]["dur"] / 2  # overlaps without nesting
    with pytest.raises(AssertionError):
        check_trace(trace)


def test_a_trace_without_power_has_no_counter(make_document: Make) -> None:
    trace = to_trace(make_document(energy=False))
    check_trace(trace)
    assert not [event for event in trace["traceEvents"] if event["ph"] == "C"]


def test_csv_has_a_row_for_each_point(make_document: Make) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(make_document()))))
    assert len(rows) == 8
    assert [float(row["k"]) for row in rows[:4]] == [1.0, 0.6, 0.4, 0.2]
    assert float(rows[0]["energy_mj"]) == 300.0
    assert rows[0]["valid"] == "True"


def test_csv_leaves_the_unknown_empty(make_document: Make) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(make_document(energy=False, recall=False)))))
    assert {row["energy_mj"] for row in rows} == {""}
    assert {row["recall"] for row in rows} == {""}
    assert rows[0]["energy_note"] == "no power source is readable"


def test_the_governor_understands_the_manifests_part(make_document: Make) -> None:
    profile = json.loads(json.dumps(manifest_profile(make_document()), allow_nan=False))
    ladder = ladder_from_profile(host_governor(), profile)
    assert ladder.measured
    assert ladder.levels[-1].k == 1.0 and ladder.levels[-1].energy_mj == 300.0
    assert profile["device"]["recall_of"] == "made-up places"
    assert profile["device"]["idle_mw"] == 4200.0


def test_invalid_points_stay_in_the_manifest_and_out_of_the_ladder(make_document: Make) -> None:
    profile = manifest_profile(make_document(invalid=(0.6,)))
    assert [p["k"] for p in profile["points"] if not p["valid"]] == [0.6, 0.6]
    assert profile["points"][1]["invalid"].startswith("the clock fell")
    assert 0.6 not in [level.k for level in ladder_from_profile(host_governor(), profile).levels]


def test_documents_are_read_back(make_document: Make, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(make_document()))
    assert read_document(path) == make_document()


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {"format": "tatvpr-edge profile 9"},
        {"format": "tatvpr-edge profile 1", "points": []},
        {"format": "tatvpr-edge profile 1", "points": [{"k": 1.0}]},
        {"format": "tatvpr-edge profile 1", "points": [3]},
    ],
)
def test_what_is_no_profile_is_refused(wrong: Any) -> None:
    with pytest.raises(DataError, match="profile again"):
        check_document(wrong, "x.json")


BROKEN = (None, 5, -1.0, "x", True, [], {})


def altered(node: Any) -> Iterator[None]:
    """Each key and first element of a document in turn is missing, or something else."""
    for key in list(node) if isinstance(node, dict) else range(min(1, len(node))):
        kept = node[key]
        for broken in BROKEN:
            node[key] = broken
            yield
        node[key] = kept
        if isinstance(node, dict):
            del node[key]
            yield
            node[key] = kept
        if isinstance(kept, (dict, list)):
            yield from altered(kept)


def test_what_a_board_answers_is_refused_or_can_be_used(make_document: Make) -> None:
    """Each was a crash of the report, the table or the manifest, after the board had measured."""
    document = make_document(invalid=(1.0,))
    document["points"], document["events"] = document["points"][:1], document["events"][:1]
    document["points"][0] |= {"busy": True, "others_cores": 1.5}
    refused = used = 0
    for _ in altered(document):
        try:
            check_document(document, "the board's answer")
        except DataError as error:
            assert str(error).endswith(": profile again")
            refused += 1
            continue
        for use in (manifest_profile, to_csv, to_html, to_trace):
            use(document)
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            _print(document, Path("x"), "artifact", False)
        used += 1
    assert refused > 200 and used > 50


def test_a_file_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match="is not valid JSON"):
        read_document(tmp_path / "x.json")


def test_recall_of_an_evaluation(tmp_path: Path, make_document: Make) -> None:
    path = tmp_path / "evaluation.json"
    values = {"recall@1": {"1.0": 91.5, "0.2": 80.0}, "queries": 120}
    path.write_text(json.dumps({"protocols": {"rendered": {"micro": values}}}))
    recall, what = read_recall(path)
    assert recall == {(1.0, 1.0): 0.915, (0.2, 1.0): 0.8}
    assert what == "micro, protocol rendered, 120 queries"
    document = make_document(recall=False)
    add_recall(document, recall, what)
    assert [point["recall"] for point in document["points"][:4]] == [0.915, None, None, 0.8]


def test_recall_of_an_evaluation_of_two_folders(tmp_path: Path) -> None:
    """It was refused, with the advice to give what `evaluate --json` prints, which it is."""
    path = tmp_path / "evaluation.json"
    values = {"1": {"@1": 91.5, "@5": 95.0}, "0.2": {"@1": 80.0, "@5": 90.0}}
    text = json.dumps({"queries": 130, "queries_counted": 120, "recall": values})
    path.write_text(text, encoding="utf-8-sig")  # as Windows writes what is piped into a file
    assert read_recall(path) == (
        {(1.0, 1.0): 0.915, (0.2, 1.0): 0.8},
        "frames of two folders, 120 queries",
    )


@pytest.mark.parametrize(
    "text",
    [
        *('{"recall": {"1": {"@1": null}}, "queries_counted": null}',),
        *("", "[]", "{}", '{"points": []}', '{"protocols": {}}', '{"points": [{"k": 1}]}'),
        '{"points": [{"k": 1, "recall": 93}]}',
    ],
)
def test_what_holds_no_recall_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match="holds no recall"):
        read_recall(path)
