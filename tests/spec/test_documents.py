"""Whatever is wrong with a TOML or JSON file of the user's, every command says it in one way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tatvpr_edge.boards.loader import load
from tatvpr_edge.deploy.inventory import read_inventory
from tatvpr_edge.models.train.config import TrainConfig
from tatvpr_edge.models.train.training_file import read_config, with_changes
from tatvpr_edge.profile.document import read_document
from tatvpr_edge.spec.errors import BoardError, DataError, DeployError, TatvprError, UsageError

READERS: dict[str, tuple[Callable[[Path], object], type[TatvprError], str]] = {
    "board.toml": (lambda path: load(str(path)), BoardError, "TOML"),
    "inventory.toml": (read_inventory, DeployError, "TOML"),
    "recipe.toml": (read_config, UsageError, "TOML"),
    "profile.json": (read_document, DataError, "JSON"),
}
ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {
    "board.toml": ROOT / "boards" / "host.toml",
    "recipe.toml": ROOT / "models" / "train" / "recipes" / "nano.toml",
}
DEEP = b"a = " + b"[" * 100_000
FAULTS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "cannot be read: No such file"),
    "not UTF-8": (b'a = "\xff"', "byte 5 is not UTF-8: save it as UTF-8"),
    "cut": (b"[a", "is not valid"),
    "deep": (DEEP, "is not valid"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_cannot_be_read_is_one_line(name: str, fault: str, tmp_path: Path) -> None:
    read, kind, language = READERS[name]
    content, words = FAULTS[fault]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.removeprefix(b"a = ") if language == "JSON" else content)
    with pytest.raises(kind) as caught:
        read(path)
    message = str(caught.value)
    if fault == "not UTF-8" and language == "JSON":
        words = words.replace("5", "1")
    assert name in message and words in message and "\n" not in message
    if words == "is not valid":
        assert f"is not valid {language}" in message


def test_a_change_of_a_recipe_is_read_as_toml() -> None:
    """On every Python that is supported: 3.10 has no reader of its own."""
    config = TrainConfig()
    assert with_changes(config, ["run.seed=7"]).run.seed == 7


@pytest.mark.parametrize("name", ["board.toml", "recipe.toml"])
def test_the_mark_of_an_editor_before_utf8_is_no_fault(name: str, tmp_path: Path) -> None:
    read, _, _ = READERS[name]
    content = SHIPPED[name].read_bytes()
    plain, marked = tmp_path / "plain" / name, tmp_path / "marked" / name
    for path, data in ((plain, content), (marked, b"\xef\xbb\xbf" + content)):
        path.parent.mkdir()
        path.write_bytes(data)
    assert read(marked) == read(plain)
