"""``tools/train_zoo.py``: one command from raw data to weights, stopped and given again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from test_training import tiny_run

from support import interrupts

RECIPE = """
[zoo]
make = [{{ folder = "{views}", command = ["tools/no_such_tool.py"] }}]
[run]
output = "{output}"
threads = 1
cache = ""
[model]
name = "micro"
head = {{ digits = 1, sides = 0.3 }}
backbone = {{ image_px = 32, patch = 8, dim = 24, depth = 2, heads = 2, keep_after = [1] }}
[distil]
views = "{views}"
steps = {steps}
batch = 4
[metric]
steps = 2
places = 3
images = 2
[[data]]
format = "labelled"
root = "{data}"
"""


def command(project_root: Path, folder: Path, steps: int) -> list[str]:
    config = tiny_run(folder)  # makes the frames and the teacher's views
    recipe = folder / f"{steps}.toml"
    text = RECIPE.format(
        views=config.distil.views,
        output=folder / "made",
        steps=steps,
        data=config.data[0].root,
    )
    recipe.write_text(text)
    return [sys.executable, str(project_root / "tools" / "train_zoo.py"), str(recipe)]


def test_data_that_are_there_are_not_made_again(project_root: Path, tmp_path: Path) -> None:
    words = command(project_root, tmp_path, 2)
    for _ in range(2):
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout == f"{tmp_path / 'made' / 'weights.safetensors'}\n"
    assert (tmp_path / "made" / "weights.safetensors").is_file()


def test_an_interrupted_training_says_how_it_goes_on(project_root: Path, tmp_path: Path) -> None:
    words = command(project_root, tmp_path, 1_000_000)
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, preexec_fn=interrupts.heed
    ) as training:
        assert training.stderr is not None
        assert "distil 1/1000000" in training.stderr.readline()
        training.send_signal(signal.SIGINT)
        said = training.stderr.read()
        assert training.wait() == 130
    assert said == "error: interrupted; the same command continues\n"
