"""Shipped models: found by name, checked against their cards, and what the cards say is so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from price_dials import MCUS
from safetensors import safe_open

from tatvpr_edge import zoo
from tatvpr_edge.compilers.canonical import model_hash
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.golden import known_dials
from tatvpr_edge.compilers.job import COMPUTE_POINTS
from tatvpr_edge.models import registry
from tatvpr_edge.models.checkpoint import load_weights
from tatvpr_edge.models.evaluate.compute import count_macs
from tatvpr_edge.models.export import build_proto
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.ship import ONE_MAP_ROWS, dials_of, ship
from tatvpr_edge.spec.errors import ModelError


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    facts = {"licence": "Apache-2.0", "recall": {"tower-shift": {"float": {"1.0": 50.0}}}}
    ship(registry.create("micro", seed=0), "micro", folder, facts)
    return folder


def test_every_shipped_model_is_what_its_card_says() -> None:
    assert "micro" in zoo.names()
    for name in zoo.names():
        card = zoo.card(name)
        session = onnxruntime.InferenceSession(
            str(zoo.path(name)), providers=["CPUExecutionProvider"]
        )
        props = session.get_modelmeta().custom_metadata_map
        assert props["tatvpr.model"] == name
        assert json.loads(props["tatvpr.config"]) == json.loads(json.dumps(card["config"]))
        side = card["image_px"]
        frame = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
        one = np.array(1, np.float32)
        (descriptor,) = session.run(None, {"frame": frame, "k": one, "tokens": one})
        assert descriptor.shape == (card["descriptor_size"],)
        assert float(np.linalg.norm(descriptor)) == pytest.approx(1.0, abs=1e-5)
        if "safetensors" in card["files"]:
            weights = load_weights(zoo.path(name, "safetensors"))
            with torch.no_grad():
                wanted = weights(torch.from_numpy(frame[None]))[0].numpy()
            assert float(descriptor @ wanted) > 0.99


def test_weights_and_onnx_file_hold_the_same_model(shipped: Path) -> None:
    import onnx

    again = load_weights(zoo.path("micro", "safetensors", shipped))
    exported = build_proto(again).graph
    file = onnx.load(zoo.path("micro", zoo=shipped)).graph
    assert list(exported.node) == list(file.node)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in exported.initializer}
    assert set(tensors) == {t.name for t in file.initializer}
    for tensor in file.initializer:
        stored = onnx.numpy_helper.to_array(tensor)
        assert np.array_equal(tensors[tensor.name], stored), tensor.name


def test_weights_are_shipped_in_half_precision_or_not_at_all(shipped: Path, tmp_path: Path) -> None:
    with safe_open(zoo.path("micro", "safetensors", shipped), framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    assert not load_weights(zoo.path("micro", "safetensors", shipped)).trained
    large = registry.create(registry.config("nano", depth=2), seed=0)
    with torch.no_grad():
        large.backbone.cls_token[0, 0] = 7e4
    with pytest.raises(ModelError, match=r"own: backbone.cls_token does not fit half precision"):
        ship(large, "own", tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_a_new_card_states_of_each_setting_what_the_protocols_with_both_dials_found() -> None:
    config = registry.config("nano")
    ks = ("1.0", "0.6", "0.4", "0.2")
    whole = dict(zip(ks, (50.0, 48.0, 46.0, 40.0), strict=True))
    half = dict(zip(ks, (45.0, 43.0, 41.0, 30.0), strict=True))
    both = dict(zip(ONE_MAP_ROWS.values(), (whole, half), strict=True))
    more = {row: {k: value + 20 for k, value in of.items()} for row, of in both.items()}
    one_dial = {ONE_MAP_ROWS[1.0]: dict.fromkeys(ks, 0.0)}
    made = dials_of(config, {"a": both, "b": more, "of one dial": one_dial})
    assert [(s["k"], s["tokens"], s["recall"]) for s in made] == [
        *((float(k), 1.0, whole[k] + 10) for k in ks),
        *((float(k), 0.5, half[k] + 10) for k in ks),
    ]
    assert [s["macs"] for s in made] == [
        count_macs(config, float(k), tokens).total for tokens in (1.0, 0.5) for k in ks
    ]
    assert dials_of(config, {"of one dial": one_dial}) == []


def test_the_readable_card(shipped: Path) -> None:
    text = (shipped / "micro.md").read_text()
    assert "| licence | Apache-2.0 |" in text
    assert "Recall on tower-shift" in text
    macs = count_macs(registry.config("micro"), 0.6).total
    assert f"| MACs at k = 0.6 | {macs / 1e6:.1f} M |" in text
    assert zoo.card("micro", shipped)["files"]["onnx"]["sha256"] in text


def test_a_card_prices_both_dials_and_a_build_takes_them_over() -> None:
    for name in zoo.names():
        card = zoo.card(name)
        frontier = card["frontier"]
        assert [(s["k"], s["tokens"]) for s in frontier] == [
            (k, tokens) for tokens in (1.0, 0.5) for k in (1.0, 0.6, 0.4, 0.2)
        ]
        for setting in frontier:
            row = ONE_MAP_ROWS[setting["tokens"]]
            judged = [
                card["recall"][p][row][str(setting["k"])] for p in ("tower-shift", "rendered")
            ]
            assert (setting["k"], setting["tokens"]) in COMPUTE_POINTS  # a profile's MACs
            assert setting["recall"] == pytest.approx(sum(judged) / 2, abs=0.051)
            config = ModelConfig.from_dict(card["config"])
            assert setting["macs"] == count_macs(config, setting["k"], setting["tokens"]).total
            cores = setting["million_cycles"]
            a76, mcu = cores
            assert a76 == "Cortex-A76" and mcu in MCUS.values()
            whole = next(s for s in frontier if (s["k"], s["tokens"]) == (setting["k"], 1.0))
            for core, cycles in cores.items():
                assert 0 < cycles <= whole["million_cycles"][core]
            text = zoo.path(name).with_suffix(".md").read_text()
            assert f"| {setting['k']:g} | {setting['tokens']:g} | {setting['recall']:.1f} |" in text
        body = zoo.path(name)
        dials = known_dials(model_hash(checked_graph(body)), body)
        assert [(d.k, d.tokens, d.recall) for d in dials.frontier] == [
            (s["k"], s["tokens"], s["recall"]) for s in frontier
        ]


def test_a_card_knows_how_far_builds_of_its_model_drift() -> None:
    for name in zoo.names():
        drift = zoo.card(name)["drift"]
        assert drift["model_hash"] == model_hash(checked_graph(zoo.path(name))).hex()
        assert {(p["k"], p["tokens"]) for p in drift["points"]} >= {(1.0, 1.0), (0.2, 1.0)}
        assert all(0.5 < p["smallest_cosine"] <= 1 for p in drift["points"])


def test_unknown_names_list_the_known_ones(shipped: Path) -> None:
    with pytest.raises(ModelError, match="unknown model 'nano': shipped are micro"):
        zoo.path("nano", zoo=shipped)
    with pytest.raises(ModelError, match="shipped are none"):
        zoo.path("micro", zoo=shipped / "empty")


@pytest.mark.parametrize("damage", ["flipped", "missing", "card", "no files"])
def test_a_damaged_zoo_is_refused(shipped: Path, tmp_path: Path, damage: str) -> None:
    for file in shipped.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    target, card = tmp_path / "micro.onnx", tmp_path / "micro.json"
    if damage == "flipped":
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 1
        target.write_bytes(bytes(data))
    elif damage == "missing":
        target.unlink()
    elif damage == "card":
        card.write_text(card.read_text()[:100])
    else:
        card.write_text("{}")
    with pytest.raises(ModelError, match="install"):
        zoo.path("micro", zoo=tmp_path)


def test_the_models_command(capsys: pytest.CaptureFixture[str]) -> None:
    from tatvpr_edge.cli import main

    assert main(["models"]) == 0
    assert "micro" in capsys.readouterr().out
    assert main(["models", "micro", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "micro"
    assert main(["models", "micro"]) == 0
    assert zoo.card("micro")["files"]["onnx"]["sha256"] in capsys.readouterr().out
    assert main(["models", "--architectures"]) == 0
    assert "base-boq" in capsys.readouterr().out
    assert main(["models", "giant"]) == 1
    assert "shipped are micro, mini, nano" in capsys.readouterr().err


def test_the_export_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tatvpr_edge.cli import main

    output = str(tmp_path / "m.onnx")
    assert main(["export", "micro", "--random", "1", "--output", output, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["descriptor_size"] == 512 and said["weights"] == "random"
    assert main(["export", "micro", "--random", "1", "--output", output]) == 0
    assert "random weights" in capsys.readouterr().out
    weights = str(zoo.path("micro", "safetensors"))
    assert main(["export", weights, "--output", output]) == 0
    assert "random" not in capsys.readouterr().out
    assert main(["export", "micro", "--output", output]) == 1
    assert "--weights FILE, or --random SEED" in capsys.readouterr().err
    assert main(["export", "mikro", "--random", "1", "--output", output]) == 1
    assert "unknown model" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "no.safetensors"), "--output", output]) == 1
    assert "no.safetensors" in capsys.readouterr().err
