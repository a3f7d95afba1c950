"""A user hands in what is no ONNX file, half of one, or one whose weights lie elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.spec.errors import ModelError, TatvprError

Make = Callable[..., onnx.ModelProto]


class TestFiles:
    def test_a_file_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no such ONNX file"):
            checked_graph(tmp_path / "none.onnx")

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "empty.onnx").write_bytes(b"")
        with pytest.raises(ModelError, match="is empty, not an ONNX file"):
            checked_graph(tmp_path / "empty.onnx")

    def test_a_picture(self, tmp_path: Path) -> None:
        (tmp_path / "cat.onnx").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)))
        with pytest.raises(ModelError, match="not an ONNX file"):
            checked_graph(tmp_path / "cat.onnx")

    @pytest.mark.parametrize(
        "marked",
        [
            lambda model: model.graph.initializer[0],
            lambda model: model.graph.initializer[0].external_data.add(),
            lambda model: model.graph.node[0],
            lambda model: model.graph.node[-1].attribute.add(),
            lambda model: model.graph.output[0],
            lambda model: model.functions[0],
            lambda model: model.functions[0].node[0],
            lambda model: model.opset_import[0],
            lambda model: model.metadata_props.add(),
            lambda model: model,
        ],
    )
    def test_a_text_that_is_no_utf8(
        self, tiny: Make, tmp_path: Path, marked: Callable[[onnx.ModelProto], Any]
    ) -> None:
        """Every text field of a message in turn, of every kind of message: found by fuzzing, where
        a location that was bytes ended in a TypeError."""
        names = [f.name for f in marked(tiny()).DESCRIPTOR.fields if f.type == f.TYPE_STRING]
        assert names
        for name in names:
            model = tiny()
            part = marked(model)
            if isinstance(getattr(part, name), str):
                setattr(part, name, "MARKED")
            else:
                getattr(part, name).append("MARKED")
            path = tmp_path / "texts.onnx"
            path.write_bytes(model.SerializeToString().replace(b"MARKED", b"MARK\xff\xfe"))
            with pytest.raises(ModelError, match=rf"{name} b'MARK.*is not UTF-8 text: export"):
                checked_graph(path)

    @given(cut=st.floats(0, 0.999))
    def test_a_file_cut_anywhere_is_refused_and_never_crashes(
        self, tiny_file: Path, tmp_path_factory: Any, cut: float
    ) -> None:
        data = tiny_file.read_bytes()
        path = Path(tmp_path_factory.mktemp("cut")) / "cut.onnx"
        path.write_bytes(data[: int(len(data) * cut)])
        with pytest.raises(TatvprError):
            checked_graph(path)


class TestExternalData:
    @pytest.fixture
    def external(self, tiny: Make, tmp_path: Path) -> Path:
        """A good model whose large tensors lie in weights.data."""
        folder = tmp_path / "model"
        folder.mkdir()
        path = folder / "tiny.onnx"
        onnx.save(
            tiny(), path, save_as_external_data=True, location="weights.data", size_threshold=64
        )
        return path

    def relocate(self, path: Path, **changes: str) -> None:
        model = onnx.load(path, load_external_data=False)
        tensor = next(t for t in model.graph.initializer if t.external_data)
        for entry in tensor.external_data:
            if entry.key in changes:
                entry.value = changes[entry.key]
        path.write_bytes(model.SerializeToString())

    def test_beside_the_model_is_read(self, external: Path, tiny_file: Path) -> None:
        graph, plain = checked_graph(external), checked_graph(tiny_file)
        for name, value in plain.constants.items():
            assert np.array_equal(graph.constants[name], value)

    @pytest.mark.parametrize(
        "location",
        ["../weights.data", "a/../../weights.data", "..\\weights.data", "C:\\weights.data", ""],
    )
    def test_outside_of_the_folder(self, external: Path, location: str) -> None:
        (external.parent.parent / "weights.data").write_bytes(bytes(100_000))
        self.relocate(external, location=location)
        with pytest.raises(ModelError, match="in the model's own folder"):
            checked_graph(external)

    def test_an_absolute_path(self, external: Path) -> None:
        self.relocate(external, location=str(external.parent / "weights.data"))
        with pytest.raises(ModelError, match="in the model's own folder"):
            checked_graph(external)

    @pytest.mark.parametrize("link", [os.symlink, os.link])
    def test_a_link(self, external: Path, link: Callable[[Path, Path], None]) -> None:
        data = external.parent / "weights.data"
        elsewhere = external.parent.parent / "elsewhere.data"
        data.rename(elsewhere)
        link(elsewhere, data)
        with pytest.raises(ModelError, match="link"):
            checked_graph(external)

    def test_a_folder_that_is_a_link(self, external: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (external.parent / "weights.data").rename(outside / "weights.data")
        (external.parent / "inside").symlink_to(outside)
        self.relocate(external, location="inside/weights.data")
        with pytest.raises(ModelError, match="symbolic link"):
            checked_graph(external)

    def test_a_missing_file(self, external: Path) -> None:
        (external.parent / "weights.data").unlink()
        with pytest.raises(ModelError, match="missing"):
            checked_graph(external)

    def test_a_short_file(self, external: Path) -> None:
        data = external.parent / "weights.data"
        data.write_bytes(data.read_bytes()[:100])
        with pytest.raises(ModelError, match="are needed"):
            checked_graph(external)

    @pytest.mark.parametrize("changes", [{"offset": "-5"}, {"length": "7"}, {"offset": "1e3"}])
    def test_numbers_that_make_no_sense(self, external: Path, changes: dict[str, str]) -> None:
        self.relocate(external, **changes)
        with pytest.raises(ModelError, match="external data"):
            checked_graph(external)
