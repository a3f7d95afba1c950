"""``build_artifact``: a model and a board go in, a verified artifact comes out, or nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from elftools.elf.elffile import ELFFile

from support.tools import require_tool
from tatvpr_edge.boards.loader import load, names
from tatvpr_edge.compilers import golden
from tatvpr_edge.compilers.build import build_artifact, plan_artifact
from tatvpr_edge.compilers.canonical import model_hash
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.cost import frame_cost
from tatvpr_edge.compilers.elf import read_elf
from tatvpr_edge.compilers.job import Job, model_drift
from tatvpr_edge.compilers.linux import compile_linux, open_library
from tatvpr_edge.compilers.objects import made_anew
from tatvpr_edge.compilers.report import BuildPlan
from tatvpr_edge.compilers.tvm.lower import lower
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.cache import host_artifact
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.library import Library
from tatvpr_edge.runtime.verify import report, verify_artifact
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import (
    ArtifactError,
    BoardError,
    ModelError,
    TatvprError,
    ToolError,
    UsageError,
)
from tatvpr_edge.spec.manifest import Dials

AARCH64 = [name for name in names() if load(name).cpu.architecture == "aarch64"]


@pytest.fixture(scope="session")
def host(tiny_file: Path, tmp_path_factory: Any) -> Path:
    """A host artifact of the tiny model."""
    require_tool("gcc", "gcc")
    return build(Path(tmp_path_factory.mktemp("built")) / "host", "host", tiny_file)


def build(output: Path, board: str, model: Path, **options: Any) -> Path:
    made = build_artifact(board, model=model, output=output, **options)
    assert isinstance(made, Path)
    return made


class TestHostArtifact:
    def test_it_is_whole(self, host: Path, tiny_file: Path) -> None:
        artifact = read_artifact(host, board="host")
        manifest = artifact.manifest
        assert manifest.model.hash == model_hash(checked_graph(tiny_file)).hex()
        assert (manifest.model.descriptor_size, manifest.model.max_tokens) == (40, 17)
        assert "portable" in manifest.code.kernels
        assert manifest.golden.exact
        assert {p.k for p in manifest.golden.points} == {1.0, 0.6, 0.4, 0.2, 0.05}
        assert all(0.9 < p.min_cosine <= 1 for p in manifest.golden.points)
        assert len(artifact.read("weights.bin")) == manifest.memory["weight_bytes"]

    def test_its_library_gives_its_golden_vectors(self, host: Path) -> None:
        artifact = read_artifact(host)
        library = Library.of(artifact)
        for point in artifact.manifest.golden.points:
            wanted = np.frombuffer(artifact.read(point.path), "<f4").reshape(2, -1)
            for row, entry in zip(wanted, artifact.manifest.golden.frames, strict=True):
                pixels = np.frombuffer(artifact.read(entry.path), np.uint8)
                frame = pixels.reshape(entry.height, entry.width, 3)
                got = library.describe(check_frame(frame), point.k, point.tokens).descriptor
                assert got.tobytes() == row.tobytes()

    def test_fewer_multiplications_at_smaller_k(self, host: Path) -> None:
        compute = read_artifact(host).manifest.compute
        macs = [p["macs"] for p in compute if p["tokens"] == 1.0]
        assert macs == sorted(macs, reverse=True) and macs[-1] < macs[0] / 2
        dense = 17 * (48 * 144 + 48 * 48 + 2 * 48 * 96) * 2 + 48 * 40
        assert macs[0] == dense + 2 * (2 * 17 * 17 * 48) + 16 * 48 * 192

    def test_it_is_the_same_bytes_every_time(
        self, host: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        again = build(tmp_path / "again", "host", tiny_file)
        assert (again / "manifest.json").read_bytes() == (host / "manifest.json").read_bytes()

    def test_a_narrow_k_range(self, tiny_file: Path, tmp_path: Path) -> None:
        manifest = read_artifact(
            build(tmp_path / "a", "host", tiny_file, k_range=(0.3, 0.5))
        ).manifest
        assert manifest.k_range == (0.3, 0.5)
        assert {p.k for p in manifest.golden.points} == {0.3, 0.4, 0.5}

    @pytest.mark.parametrize(
        ("low", "high", "k"), [(0.05, 1.0, 0.4), (0.5, 1.0, 0.5), (0.1, 0.3, 0.3)]
    )
    def test_every_k_range_has_a_golden_vector_of_fewer_tokens(
        self, low: float, high: float, k: float
    ) -> None:
        fewer = [at for at in golden.points_within((low, high), True) if at[1] < 1]
        assert fewer == [(k, 0.5)]

    def test_golden_vectors_are_of_the_range_of_k_and_of_a_frame_that_is_resized(self) -> None:
        """``verify`` asks for each of them on the board, which answers at no other k."""
        upper = [(1.0, 1.0), (0.6, 1.0), (0.5, 1.0), (0.5, 0.5)]
        assert golden.points_within((0.5, 1.0), keeps_tokens=True) == upper
        assert golden.points_within((0.4, 0.4), keeps_tokens=True) == [(0.4, 1.0), (0.4, 0.5)]
        assert golden.points_within((0.4, 0.4), keeps_tokens=False) == [(0.4, 1.0)]
        every = golden.points_within(golden.EVERY_K, keeps_tokens=True)
        assert set(every) == set(golden.POINTS)
        own, other = golden.golden_frames(128)
        assert (own.shape, other.shape) == ((128, 128, 3), (96, 160, 3))

    def test_what_the_file_and_its_card_say_reaches_the_manifest_and_people(
        self, tiny: Callable[..., onnx.ModelProto], tmp_path: Path
    ) -> None:
        """Random weights, groups, default dials and the frontier, inside the range of k."""
        proto = tiny("gem", group={"qkv": 1, "out": 1, "up": 1, "down": 8})
        onnx.helper.set_model_props(proto, {"tatvpr.weights": "random"})
        file = tmp_path / "m.onnx"
        onnx.save(proto, file)
        (tmp_path / "m.json").write_text(
            json.dumps(
                {
                    "defaults": {"k": 0.2, "tokens": 0.5},
                    "frontier": [
                        {"k": 1.0, "tokens": 1.0, "recall": 50.0},
                        {"k": 0.4, "tokens": 0.5, "recall": 48.0},
                        {"k": 0.1, "tokens": 0.5, "recall": 30.0},
                    ],
                }
            )
        )
        points = golden.points_within((0.4, 1.0), keeps_tokens=True)
        drift = [golden.DriftPoint(k, t, 0.999) for k, t in points]
        golden.write_drift(tmp_path / "m.json", model_hash(checked_graph(file)), drift)
        made = build_artifact("host", model=file, output=tmp_path / "A", k_range=(0.4, 1.0))
        assert isinstance(made, Path)
        manifest = read_artifact(made).manifest
        assert manifest.model.weights == "random"
        assert manifest.model.groups == {"blocks.0.down": 8, "blocks.1.down": 8}
        assert manifest.defaults == Dials(0.4, 0.5)
        assert manifest.frontier == (Dials(1.0, 1.0, 50.0), Dials(0.4, 0.5, 48.0))
        assert "random weights" in report(verify_artifact(made))
        with Localizer(made) as localizer:
            assert (localizer.k, localizer.tokens) == (0.4, 0.5)

    def test_without_output_it_becomes_the_default_of_localizer(
        self, tiny_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        known = {what: golden.cache_folder(what) for what in ("drift", "objects")}
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        golden.cache_folder("drift").parent.mkdir(parents=True)
        for what, folder in known.items():
            golden.cache_folder(what).symlink_to(folder)
        for _ in range(2):  # the second replaces the first
            assert build_artifact("host", model=tiny_file) == host_artifact()
        assert read_artifact(host_artifact(), board="host").manifest.model.name == "tiny"

    def test_progress_is_reported(self, tiny_file: Path, tmp_path: Path) -> None:
        seen: list[str] = []
        build(tmp_path / "a", "host", tiny_file, progress=lambda what, done, of: seen.append(what))
        assert seen[0] == "checking the model" and seen[-1] == "writing the artifact"


@pytest.mark.slow
@pytest.mark.parametrize("name", AARCH64)
def test_aarch64_boards_get_a_library_that_they_can_load(
    name: str, host: Path, tiny_file: Path, tmp_path: Path
) -> None:
    board = load(name)
    require_tool(board.toolchain.gcc, *board.toolchain.gcc_packages)
    artifact = read_artifact(build(tmp_path / name, name, tiny_file), board=name)
    library = artifact.path(artifact.manifest.code.path)
    elf = read_elf(library)
    assert elf.machine == "aarch64"
    assert elf.glibc <= (2, 35)
    with library.open("rb") as stream:
        exported = {
            symbol.name
            for symbol in ELFFile(stream).get_section_by_name(".dynsym").iter_symbols()
            if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
        }
    assert "tatvpr_describe" in exported
    assert all(name.startswith("tatvpr_") for name in exported)
    # One model: the golden vectors are those of the host.
    mine, theirs = artifact, read_artifact(host)
    for point in mine.manifest.golden.points:
        assert mine.read(point.path) == theirs.read(point.path)


class TestPlan:
    @pytest.mark.parametrize("name", ["host", "jetson-orin-nano", "stm32h7"])
    def test_it_states_what_the_build_will_be(self, name: str, tiny_file: Path) -> None:
        plan = plan_artifact(name, model=tiny_file)
        assert isinstance(plan, BuildPlan)
        text = "\n".join(plan.lines())
        assert "GatedLinear" in text and "MACs" in text and "C compiler" in text
        assert plan.arena_bytes is not None and plan.arena_bytes > plan.planned_bytes
        assert plan.to_dict()["core_steps"]["Mlp"] == 2

    def test_it_makes_nothing(
        self, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        plan_artifact("host", model=tiny_file)
        assert list(tmp_path.iterdir()) == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"board": "jetson-nano-9"}, BoardError, "jetson-nano-9"),
            ({"backend": "cuda"}, UsageError, "tvm, tensorrt"),
            ({"backend": "tensorrt"}, UsageError, "no GPU"),
            ({"k_range": (0.0, 1.0)}, UsageError, "k-range"),
            ({"k_range": (0.5, 0.2)}, UsageError, "smaller k first"),
            *(({"k_range": k}, UsageError, "k_range is .*largest k") for k in (0.5, (0.2,), None)),
            ({"model": "missing.onnx"}, ModelError, "missing.onnx"),
            ({"model": "no-such-model"}, TatvprError, "no-such-model"),
        ],
    )
    def test_arguments(
        self, tiny_file: Path, tmp_path: Path, options: Any, error: Any, words: str
    ) -> None:
        options = {"model": tiny_file, "board": "host", **options}
        board = options.pop("board")
        with pytest.raises(error, match=words) as caught:
            build_artifact(board, output=tmp_path / "out", **options)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_an_output_that_exists(self, tiny_file: Path, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        for place in ("there", "there/..", "new/.."):
            with pytest.raises(ArtifactError, match="exists"):
                build_artifact("host", model=tiny_file, output=tmp_path / place)
        assert [path.name for path in tmp_path.iterdir()] == ["there"]


class TestDriftCards:
    def test_of_what_will_be_signed_no_cache_says_how_far_answers_may_lie(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        onnx_file, points = tmp_path / "m.onnx", [(1.0, 1.0)]
        planted = [golden.DriftPoint(1.0, 1.0, 0.76)]
        golden.cache_drift(b"a" * 32, planted)
        assert golden.known_drift(b"a" * 32, onnx_file, points) == planted
        with made_anew():
            assert golden.known_drift(b"a" * 32, onnx_file, points) is None
            said = [golden.DriftPoint(1.0, 1.0, 0.99)]
            golden.write_drift(golden.model_card(onnx_file), b"a" * 32, said)
            assert golden.known_drift(b"a" * 32, onnx_file, points) == said

    @pytest.mark.parametrize("damage", ["empty", "half", "a list", "deep", "altered", "another's"])
    def test_what_is_remembered_is_believed_only_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        onnx_file, points = tmp_path / "m.onnx", [(1.0, 1.0)]
        found = [golden.DriftPoint(1.0, 1.0, 0.96)]
        golden.cache_drift(b"b" * 32, found)
        (other,) = (tmp_path / "cache" / "tatvpr-edge" / "drift").iterdir()
        strange = other.read_bytes()
        golden.cache_drift(b"a" * 32, found)
        (kept,) = set(other.parent.iterdir()) - {other}
        whole = kept.read_bytes()
        kept.write_bytes(
            {
                "empty": b"",
                "half": whole[: len(whole) // 2],
                "a list": b"[]",
                "deep": b"[" * 100_000,
                "altered": whole.replace(b"0.96", b"0.76"),
                "another's": strange,
            }[damage]
        )
        assert golden.known_drift(b"a" * 32, onnx_file, points) is None
        golden.cache_drift(b"a" * 32, found)
        assert golden.known_drift(b"a" * 32, onnx_file, points) == found

    def test_a_card_is_used_only_for_its_model(self, tmp_path: Path) -> None:
        onnx_file, points = tmp_path / "m.onnx", [(1.0, 1.0), (0.2, 1.0)]
        found = [golden.DriftPoint(k, t, 0.99) for k, t in points]
        golden.model_card(onnx_file).write_text('{"name": "m"}')
        golden.write_drift(golden.model_card(onnx_file), b"a" * 32, found)
        assert golden.known_drift(b"a" * 32, onnx_file, points) == found
        assert golden.known_drift(b"b" * 32, onnx_file, points) is None
        assert golden.known_drift(b"a" * 32, onnx_file, [*points, (0.3, 1.0)]) is None
        assert found[0].min_cosine == pytest.approx(0.98)
        assert json.loads(golden.model_card(onnx_file).read_text())["name"] == "m"

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"drift": 5}', '{"drift": {"frames": 1}}'])
    def test_a_damaged_card_is_measured_again(self, tmp_path: Path, text: str) -> None:
        golden.model_card(tmp_path / "m.onnx").write_text(text)
        assert golden.known_drift(b"c" * 32, tmp_path / "m.onnx", [(1.0, 1.0)]) is None


class TestDriftOfLargeModels:
    """A large model is measured on fewer frames, and allowed what 200 of them would show."""

    def test_frames_follow_from_the_model_alone(self) -> None:
        assert golden.drift_frames(600_000_000) == golden.DRIFT_FRAMES  # ``micro``
        assert golden.drift_frames(8_000_000_000) > 150  # ``small``
        assert golden.drift_frames(50_000_000_000) == 30  # ``base``
        assert golden.drift_frames(10**13) == golden.LEAST_DRIFT_FRAMES

    def test_the_largest_distance_is_taken_further(self, tiny_file: Path, tmp_path: Path) -> None:
        require_tool("gcc", "gcc")
        lowered = lower(checked_graph(tiny_file), "tiny")
        libraries = [
            open_library(compile_linux(lowered, load("host"), tmp_path / name, flags), lowered)
            for name, flags in (("core", ()), ("permuted", ("-DTATVPR_PERMUTED",)))
        ]
        size = lowered.matched.image_size
        frames = [golden.synthetic_frame(seed, size, size) for seed in range(30)]
        one, other = ([golden.describe(x, f, 0.2, 1.0) for f in frames] for x in libraries)
        largest = max(1 - golden.cosine(a, b) for a, b in zip(one, other, strict=True))
        point = golden.measure_drift(*libraries, size, [(0.2, 1.0)], frames=30)[0]
        assert largest > 0
        stated = largest * np.log(200) / np.log(30)
        assert 1 - point.smallest_cosine == pytest.approx(stated, rel=1e-9)

    def test_what_a_build_of_another_range_of_k_found_is_what_this_one_finds(
        self, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fewer settings cost less, and more frames of them were measured: a manifest's bounds were
        others where a build of every k had been before."""
        require_tool("gcc", "gcc")
        graph = checked_graph(tiny_file)
        lowered = lower(graph, "tiny")
        points = golden.points_within((0.05, 1.0), lowered.matched.keeps_tokens)
        macs = sum(frame_cost(lowered.matched, *point).macs for point in points)
        monkeypatch.setattr(golden, "DRIFT_MACS", 30 * macs)
        core = open_library(compile_linux(lowered, load("host"), tmp_path / "core"), lowered)
        objects = golden.cache_folder("objects")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        golden.cache_folder("drift").mkdir(parents=True)
        golden.cache_folder("objects").symlink_to(objects)
        found = []
        for least in (0.6, 0.05):
            job = Job(load("host"), tiny_file, graph, "tiny", (least, 1.0), "tvm", lambda *_: None)
            found.append(model_drift(lowered, job, core, tmp_path / str(least)))
        assert found[0][:2] == found[1][:2]  # at k = 1 and .6, all tokens

    def test_a_card_of_too_few_frames_is_measured_again(self, tmp_path: Path) -> None:
        card, found = golden.model_card(tmp_path / "m.onnx"), [golden.DriftPoint(1.0, 1.0, 0.99)]
        for frames, known in ((golden.LEAST_DRIFT_FRAMES - 1, None), (30, found)):
            golden.write_drift(card, b"a" * 32, found, frames)
            assert golden.known_drift(b"a" * 32, tmp_path / "m.onnx", [(1.0, 1.0)]) == known


class TestModelsThatDrift:
    """Random weights at small k: two correct builds may give nearly unrelated descriptors."""

    def drifting(self, model: Path, folder: Path, lowest: float) -> Path:
        """A copy of ``model`` whose card says how far it drifts at each k."""
        copy = folder / "own.onnx"
        copy.write_bytes(model.read_bytes())
        points = golden.points_within((0.05, 1.0), True)
        found = [golden.DriftPoint(k, t, lowest if k < 0.5 else 0.999) for k, t in points]
        digest = model_hash(checked_graph(copy))
        golden.write_drift(golden.model_card(copy), digest, found)
        return copy

    def test_settings_that_tell_nothing_have_no_golden_vectors(
        self, tiny_file: Path, tmp_path: Path
    ) -> None:
        require_tool("gcc", "gcc")
        model = self.drifting(tiny_file, tmp_path, lowest=0.4)
        made = build_artifact("host", model=model, output=tmp_path / "out")
        points = read_artifact(made).manifest.golden.points
        assert sorted(point.k for point in points) == [0.6, 1.0]

    def test_a_model_that_tells_nothing_anywhere_is_refused(self) -> None:
        lost = [golden.DriftPoint(k, 1.0, 0.3) for k in (1.0, 0.2)]
        with pytest.raises(ModelError, match="no golden vector could tell a damaged one"):
            golden.make_golden(None, 32, lost, exact=True)  # type: ignore[arg-type]


def test_importing_the_builder_is_light() -> None:
    """TVM takes seconds to import: a wrong argument is refused before that."""
    program = (
        "import sys, tatvpr_edge.compilers.build; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'tvm', 'torch', 'onnxruntime'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_without_tvm_the_error_says_how_to_get_it(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tatvpr_edge.compilers.tvm.lower", raising=False)
    monkeypatch.setitem(sys.modules, "tvm", None)
    for name in [n for n in sys.modules if n.startswith("tatvpr_edge.compilers.tvm.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ToolError, match=r"pip install 'tatvpr-edge\[build\]'"):
        build_artifact("host", model=tiny_file, output=tmp_path / "out")
