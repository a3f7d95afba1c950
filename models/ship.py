"""A trained model into the zoo: weights, ONNX file and the card that says how it came about."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from tatvpr_edge.models.checkpoint import save_weights, write_atomically
from tatvpr_edge.models.evaluate.compute import count_macs
from tatvpr_edge.models.evaluate.describers import deployed_bytes
from tatvpr_edge.models.export import export_onnx
from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.models.nn.vit import PlaceModel
from tatvpr_edge.spec.errors import ModelError

#: Fractions for which a card gives figures.
CARD_KS = (1.0, 0.6, 0.4, 0.2)
#: Rows of a protocol's recall that say what queries find in a map of one band, made at k = 1 with
#: all tokens, by the share of the tokens that the queries keep.
ONE_MAP_ROWS = {
    1.0: "map at k = 1, float",
    0.5: "half the tokens, map at k = 1 with all, float",
}


def ship(model: PlaceModel, name: str, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write ``name.safetensors``, ``name.onnx``, ``name.json`` and ``name.md``.

    Master weights are rounded to half precision first, which halves the file; the ONNX file is
    made from the rounded ones, so that both hold the same model.

    Args:
        facts: what the card says beside sizes and hashes: licence, data, schedule, seeds,
            hardware, time, recall, and notes.

    Raises:
        ModelError: weights too large for half precision.
    """
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            rounded = parameter.half().float()
            if not bool(rounded.isfinite().all()):
                raise ModelError(f"{name}: {key} does not fit half precision")
            parameter.copy_(rounded)
    weights, onnx = folder / f"{name}.safetensors", folder / f"{name}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, weights, half=True)
    export_onnx(model, onnx)
    config = model.config
    card = {
        "name": name,
        "head": config.head.kind,
        "descriptor_size": model.descriptor_size,
        "image_px": config.backbone.image_px,
        "parameters": sum(p.numel() for p in model.parameters()),
        "model_mb": round(deployed_bytes(model) / 1e6, 3),
        "macs": {str(k): count_macs(config, k).total for k in CARD_KS},
        "config": config.to_dict(),
        "files": {
            file.suffix[1:]: {
                "bytes": file.stat().st_size,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            }
            for file in (weights, onnx)
        },
        **facts,
    }
    if frontier := dials_of(config, card.get("recall", {})):
        card["frontier"] = frontier
    write_atomically(
        folder / f"{name}.json", (json.dumps(card, indent=1, sort_keys=False) + "\n").encode()
    )
    write_atomically(folder / f"{name}.md", as_markdown(card).encode())
    return card


def dials_of(config: ModelConfig, recall: dict[str, Any]) -> list[dict[str, float]]:
    """The settings of both dials that were evaluated, densest first, as builds put them into a
    manifest: what queries at each find in a map made at k = 1 with all tokens, the mean of all
    protocols that judged both dials; and its MACs. What a setting costs is another matter on every
    board, so that none is left out here: a profile says which of them are worth having there, and
    ``tools/price_dials.py`` adds estimates.

    Args:
        recall: a card's, by protocol and row.
    """
    judged = [rows for rows in recall.values() if set(ONE_MAP_ROWS.values()) <= set(rows)]
    return [
        {
            "k": k,
            "tokens": tokens,
            "recall": round(sum(rows[row][str(k)] for rows in judged) / len(judged), 1),
            "macs": count_macs(config, k, tokens).total,
        }
        for tokens, row in ONE_MAP_ROWS.items()
        for k in CARD_KS
        if judged
    ]


def as_markdown(card: dict[str, Any]) -> str:
    """The card for readers."""
    lines = [f"# {card['name']}", "", str(card.get("summary", "")), ""]
    backbone = card["config"]["backbone"]
    lines += [
        "| | |",
        "|---|---|",
        f"| frame | {card['image_px']} px square, patch {backbone['patch']} |",
        f"| network | {backbone['depth']} blocks, width {backbone['dim']}, "
        f"{backbone['heads']} heads, {card['parameters'] / 1e6:.2f} M parameters |",
        f"| head | {card['head']}, {card['descriptor_size']} numbers |",
        f"| size deployed | {card['model_mb']} MB |",
    ]
    lines += [f"| MACs at k = {k} | {value / 1e6:.1f} M |" for k, value in card["macs"].items()]
    for title in ("licence", "data", "teacher", "schedule", "seeds", "hardware", "time"):
        if title in card:
            lines.append(f"| {title} | {card[title]} |")
    lines.append("")
    for protocol, rows in card.get("recall", {}).items():
        ks = list(next(iter(rows.values())))
        lines += [f"## Recall on {protocol}, percent", ""]
        lines += ["| | " + " | ".join(f"k = {k}" for k in ks) + " |", "|---" * (len(ks) + 1) + "|"]
        for row, values in rows.items():
            lines.append(f"| {row} | " + " | ".join(f"{values[k]:.1f}" for k in ks) + " |")
        lines.append("")
    if "frontier" in card:
        lines += ["## The two dials, map at k = 1 with all tokens", ""]
        cores = list(card["frontier"][0].get("million_cycles", {}))
        heads = ["k", "tokens", "found, percent, mean of the protocols with both", "M MACs"]
        heads += [f"M cycles, {core}, estimated" for core in cores]
        lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for s in card["frontier"]:
            cells = [f"{s['k']:g}", f"{s['tokens']:g}", f"{s['recall']:.1f}"]
            cells += [f"{s['macs'] / 1e6:.1f}", *(f"{s['million_cycles'][c]:g}" for c in cores)]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    lines += [f"- {note}" for note in card.get("notes", [])]
    lines += ["", "SHA-256:", ""]
    lines += [f"- `{card['name']}.{kind}` {file['sha256']}" for kind, file in card["files"].items()]
    return "\n".join(lines) + "\n"
