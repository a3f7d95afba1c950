"""What fuzzing looks for holds on every seed and on every input that failed once, and a reader that
broke it would be noticed. ``make fuzz`` searches on from there."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from fuzz import corpus, run, seeds, targets
from fuzz.targets import TARGETS, BrokenProperty
from support.tools import lacking
from tatvpr_edge.spec import placemap
from tatvpr_edge.spec.errors import MapError


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_and_what_failed_once(name: str, build_cache: Path) -> None:
    found = seeds.seeds_of(name)
    assert len(found) >= 3
    for seed, data in found.items():
        try:
            TARGETS[name].run(data)
        except Exception as error:
            raise AssertionError(f"seed {seed} of {name}: {error!r}") from error


@pytest.mark.parametrize("name", sorted({*TARGETS} - {"agent", "telemetry"}))
def test_a_seed_is_read_to_its_end(
    name: str, build_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what lies behind the first refusal is never searched. (A conversation with a board ends
    by an error in any case, and telemetry refuses nothing.)"""
    refused = targets.refusal
    read = 0

    @contextlib.contextmanager
    def noted() -> Iterator[None]:
        nonlocal read
        with refused():
            yield
            read += 1

    monkeypatch.setattr(targets, "refusal", noted)
    for data in seeds.seeds_of(name).values():
        TARGETS[name].run(data)
    assert read > 0


def test_the_seeds_of_maps_are_whole_maps() -> None:
    for data in seeds.map_seeds().values():
        placemap.parse_base(np.frombuffer(data, np.uint8))


def test_what_earlier_runs_found_is_kept_and_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = sorted(corpus.CORPORA.glob("*"))
    assert {path.stem for path in kept} == {*run.C_TARGETS, *TARGETS}
    for path in kept:
        inputs = corpus.corpus_of(path.stem)
        assert inputs and path.stat().st_size <= corpus.MOST_BYTES + 2000
        assert max(map(len, inputs.values())) <= run.most_bytes(path.stem)
    monkeypatch.setattr(corpus, "CORPORA", tmp_path)
    inputs = {"b": bytes(9), "a": b"x", "c": bytes(range(256))}
    first = corpus.pack("core-map", inputs).read_bytes()
    again = corpus.pack("core-map", dict(reversed(inputs.items()))).read_bytes()
    assert first == again and corpus.corpus_of("core-map") == inputs
    written = seeds.write_seeds("core-map", tmp_path / "seeds")
    assert {"a", "b", "c", *seeds.map_seeds()} == {path.name for path in written.iterdir()}


def test_ci_searches_on_in_every_reader_before_it_tests(project_root: Path) -> None:
    """As ``docs/threats.md`` says: half a minute each, and the soak three minutes."""
    assert set(run.C_TARGETS.values()) == {"map", "blob", "frame", "journal"}
    assert {"manifest", "map", "journal", "onnx", "release-list", "telemetry"} <= set(TARGETS)
    stages = [
        line.partition("#")[0].split()
        for line in (project_root / ".ci" / "run").read_text().splitlines()
        if line.startswith("make ")
    ]
    assert stages[-1] == ["make", "test"]
    assert ["make", "soak", "SOAK_MINUTES=3"] in [stage[:3] for stage in stages]
    assert any(stage[1:3] == ["fuzz", "FUZZ_SECONDS=30"] for stage in stages)
    assert not any("FUZZ_TARGETS" in word for stage in stages for word in stage)


def test_ci_says_the_same_of_a_commit_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same executions find the same inputs: a commit that passed once is not refused later."""
    if importlib.util.find_spec("atheris") is None:
        lacking("atheris", "pip install '.[fuzz]' (x86-64 alone)")
    assert set(run.CI_EXECUTIONS) == {*run.C_TARGETS, *TARGETS}
    monkeypatch.setenv("CI", "true")
    monkeypatch.setitem(run.CI_EXECUTIONS, "manifest", 4000)
    found = []
    for turn in ("first", "second"):
        monkeypatch.setattr(run, "PLACE", tmp_path / turn)
        ran = run.run_target("manifest", run.command_of("manifest"), 60)
        assert ran.failed is None and ran.executions == 4000, ran.log.read_text()
        found.append({path.name for path in (tmp_path / turn / "corpus" / "manifest").iterdir()})
    assert found[0] == found[1] and found[0]


def test_two_readers_that_disagree_are_noticed(
    monkeypatch: pytest.MonkeyPatch, build_cache: Path
) -> None:
    data = seeds.small_map("int8")

    def refuses(data: object) -> None:
        raise MapError("this reader is stricter")

    monkeypatch.setattr(placemap, "parse_base", refuses)
    with pytest.raises(BrokenProperty, match="Python reads None places, C 3"):
        TARGETS["map"].run(data)


def test_an_error_that_is_not_ours_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tatvpr_edge.spec import manifest

    def fails(data: bytes) -> None:
        raise KeyError("board")

    monkeypatch.setattr(manifest, "parse_manifest", fails)
    with pytest.raises(KeyError):
        TARGETS["manifest"].run(b"{}")


def test_an_error_of_two_lines_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tatvpr_edge.boards import loader
    from tatvpr_edge.spec.errors import BoardError

    def fails(name: str) -> None:
        raise BoardError("one line\nand another")

    monkeypatch.setattr(loader, "load", fails)
    with pytest.raises(BrokenProperty, match="other than one line"):
        TARGETS["board"].run(b"")


@pytest.mark.parametrize("option", ["--seconds", "--lanes"])
def test_no_time_and_no_lane_are_refused(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz.run", option, "0", "no-such-target"])
    with pytest.raises(SystemExit) as end:
        run.main()
    assert end.value.code == 2 and "from 1 up" in capsys.readouterr().err


def test_a_corpus_that_is_none_or_empty_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "PLACE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["fuzz.corpus", "manifset"])
    with pytest.raises(SystemExit, match="no target manifset: there are core-"):
        corpus.main()
    for words in ([], ["manifest"]):
        monkeypatch.setattr(sys, "argv", ["fuzz.corpus", *words])
        assert corpus.main() == 0 and "manifest: has not run here" in capsys.readouterr().out


def test_clang_is_needed_for_the_targets_of_c_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run.clang.build([], tmp_path) == {}
    monkeypatch.setattr(sys, "argv", ["fuzz.run", "map", "core-map"])
    assert run.main() == 1
    assert capsys.readouterr().err.startswith("error: no clang that builds fuzz targets: ")


def test_what_is_kept_of_a_python_target_runs_what_no_shorter_input_does() -> None:
    """The shortest alone were kept: 214 inputs of maps, none of which has a map's header."""
    target = TARGETS["release-list"]
    inputs = {"long": b"{" + b" " * 99, "short": b"{", "known": b"[]", "other": b"[[]]"}
    inputs["list"] = seeds.seeds_of("release-list")["plain"]
    kept = corpus.telling(target.run, target.modules, {"known": b"[]"}, inputs)
    assert set(kept) == {"short", "list"}
