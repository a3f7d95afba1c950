"""``tatvpr-edge evaluate``: its table, its JSON, its plot, and what it refuses beforehand."""

from __future__ import annotations

import json
import resource
import shutil
import sys
from pathlib import Path

import pytest
from tiny_sets import TINY_BACKBONE, tower_set

from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import save_weights
from tatvpr_edge.models.evaluate import protocols
from tatvpr_edge.models.evaluate.plot import plot_pareto
from tatvpr_edge.spec.errors import TatvprError


def test_the_command_prints_the_table_and_the_same_json_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tatvpr_edge.cli import main

    root = tower_set(tmp_path / "tower", frames=5)
    weights = tmp_path / "tiny.safetensors"
    save_weights(registry.create(registry.config("micro", **TINY_BACKBONE), seed=0), weights)
    arguments = [
        "evaluate",
        "--model",
        str(weights),
        "--data",
        str(root),
        "--protocol",
        "tower-floor",
    ]
    arguments += ["--baseline", "gray32", "--baseline", "hog", "--no-time", "--k", "1,.4"]
    assert main([*arguments, "--json"]) == 0
    first = capsys.readouterr().out
    twice = ["--baseline", "hog", "--model", str(weights), "--protocol", "tower-floor"]
    assert main([*arguments, *twice, "--json"]) == 0  # what is named twice is judged once
    assert capsys.readouterr().out == first
    values = json.loads(first)["protocols"]["tower-floor"]["tiny"]["recall@1"]
    assert set(values) == {"1.0", "0.4"}
    assert main([*arguments, "--json", "--tokens", "1,.5"]) == 0
    dropping = json.loads(capsys.readouterr().out)["protocols"]["tower-floor"]
    assert {"tiny", "tiny, tokens 0.5"} <= set(dropping)
    assert dropping["tiny"]["recall@1"] == values
    other = tmp_path / "other" / "tiny.safetensors"
    other.parent.mkdir()
    save_weights(registry.create(registry.config("micro", **TINY_BACKBONE), seed=1), other)
    assert main([*arguments, "--model", str(other), "--json", "--tokens", ".5"]) == 0
    dropping = json.loads(capsys.readouterr().out)["protocols"]["tower-floor"]
    assert {"tiny, tokens 0.5", f"{other}, tokens 0.5"} <= set(dropping)
    save_weights(
        registry.create(registry.config("micro", **{**TINY_BACKBONE, "keep_after": 0}), seed=0),
        other,
    )
    assert main([*arguments, "--model", str(other), "--tokens", ".5"]) != 0
    assert "has no KeepTokens" in capsys.readouterr().err
    plot = tmp_path / "plot.png"
    assert main([*arguments, "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert "tower-floor: recall in percent" in printed
    assert "whether the best answer is right" in printed and "AUROC +" in printed
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_a_table_names_the_k_that_others_are_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said k=1 of whatever --k began with."""
    from tatvpr_edge.cli import main

    root, weights = tower_set(tmp_path / "tower", frames=3), tmp_path / "tiny.safetensors"
    save_weights(registry.create(registry.config("micro", **TINY_BACKBONE), seed=0), weights)
    words = ["--protocol", "tower-floor", "--baseline", "gray32", "--no-time", "--k", ".4,.2"]
    assert main(["evaluate", "--data", str(root), "--model", str(weights), *words]) == 0
    printed = capsys.readouterr().out
    assert "map k=0.4" in printed and "against k=0.4 [95 %]" in printed and "k=1" not in printed


def test_weights_called_as_a_baseline_have_a_row_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both were judged as one: twice the queries, and neither's recall."""
    from tatvpr_edge.cli import main

    root, weights = tower_set(tmp_path / "tower", frames=3), tmp_path / "gray32.safetensors"
    save_weights(registry.create(registry.config("micro", **TINY_BACKBONE), seed=0), weights)
    words = ["--protocol", "tower-floor", "--baseline", "gray32", "--no-time", "--k", "1", "--json"]
    assert main(["evaluate", "--data", str(root), "--model", str(weights), *words]) == 0
    judged = json.loads(capsys.readouterr().out)["protocols"]["tower-floor"]
    assert {name: of["queries"] for name, of in judged.items()} == {str(weights): 12, "gray32": 12}


def test_artifacts_of_one_model_and_board_have_rows_of_their_own(
    tiny_host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tatvpr_edge.cli import main

    root = tower_set(tmp_path / "tower", frames=5)
    folders = [tmp_path / "before", tmp_path / "after", tmp_path / "again" / "after"]
    for folder in folders:
        shutil.copytree(tiny_host, folder)
    base = ["evaluate", "--data", str(root), "--protocol", "tower-floor", "--baseline", "none"]
    base += ["--no-time", "--k", "1", "--artifact", str(folders[0])]

    def rows(*artifacts: Path, tokens: str = "1") -> list[str]:
        given = [word for path in artifacts for word in ("--artifact", str(path))]
        assert main([*base, *given, "--tokens", tokens, "--json"]) == 0
        return list(json.loads(capsys.readouterr().out)["protocols"]["tower-floor"])

    (alone,) = rows()
    assert "(" not in alone
    assert rows(folders[0]) == [alone]  # given twice: one row
    assert rows(folders[1], tokens="1,.5") == [
        f"{alone} ({name}){tokens}"
        for name in ("before", "after")
        for tokens in ("", ", tokens 0.5")
    ]
    assert rows(*folders[1:]) == [
        f"{alone} ({name})" for name in ("before", folders[1], folders[2])
    ]
    assert main([*base, "--artifact", str(folders[1]), "--plot", str(tmp_path / "p.png")]) == 0
    table = capsys.readouterr().out
    assert f"{alone} (before)" in table and f"{alone} (after)" in table


def test_what_a_judgement_cannot_do_is_told_before_anything_is_described(
    tiny_host: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that had been computed until then was lost."""
    from tatvpr_edge.cli import main

    root = tower_set(tmp_path / "tower", frames=5)
    base = ["evaluate", "--data", str(root), "--protocol", "tower-floor", "--no-time"]
    base += ["--baseline", "gray32", "--artifact", str(tiny_host)]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # installed, and does not load
    for words, why in (
        (["--k", "1,.01"], "k is 0.01"),
        (["--plot", str(tmp_path / "p.png")], "pip install 'tatvpr-edge[plot]'"),
    ):
        assert main([*base, *words]) == 1
        told = capsys.readouterr().err
        assert why in told and "trial" not in told


def test_what_was_found_is_not_lost_with_a_plot_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tatvpr_edge.cli import main

    root, plot = tower_set(tmp_path / "tower", frames=5), tmp_path / "full.png"
    base = ["evaluate", "--data", str(root), "--protocol", "tower-floor", "--no-time"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, before[1]))  # as on a full disk
    try:
        assert main([*base, "--baseline", "gray32", "--json", "--plot", str(plot)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    out, told = capsys.readouterr()
    assert "gray32" in json.loads(out)["protocols"]["tower-floor"]
    assert told.startswith("error:") and "full.png" in told


def test_a_plot_shows_what_no_manifest_counts_as_a_line(tmp_path: Path) -> None:
    values = {"macs": {"0.5": 0, "0.4": 0}, "recall@1": {"0.5": 40.0, "0.4": 39.0}}
    plot_pareto({"an artifact": values}, tmp_path / "p.svg", "tower-shift")
    assert "an artifact" in (tmp_path / "p.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--protocol", "tower"], "unknown protocol"),
        (["--protocol", "tower-shift", "--model", "giant"], "unknown model"),
        (["--protocol", "utm", "--baseline", "gray32"], "no folders database and queries"),
        (["--protocol", "utm", "--baseline", "none"], "nothing to evaluate"),
        (["--protocol", "utm", "--baseline", "hog", "--floors", "f1"], "no floors to choose"),
        (["--protocol", "rendered", "--baseline", "hog", "--within", "9m"], "belong to utm"),
        (["--protocol", "utm", "--within", "far"], "no distance in metres"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    from tatvpr_edge.cli import main

    assert main(["evaluate", "--data", str(tmp_path), *arguments]) != 0
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_errors_of_this_folder_are_ours() -> None:
    with pytest.raises(TatvprError):
        protocols.protocol("nothing")
