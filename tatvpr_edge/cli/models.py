"""`tatvpr-edge models [NAME]`: the shipped models, or one model's sizes, recall and SHA-256."""

from __future__ import annotations

from typing import Any

import click

from tatvpr_edge import zoo
from tatvpr_edge.cli import words
from tatvpr_edge.cli.output import console, json_option, print_json, print_table, say

#: Rows of a card, in this order, where the card has them.
_FACTS = ("summary", "licence", "data", "teacher", "schedule", "seeds", "hardware", "time")


@click.command("models")
@click.argument("name", required=False, shell_complete=words.models)
@click.option(
    "--architectures", is_flag=True, help="List what can be trained or exported (needs torch)."
)
@json_option
def command(name: str | None, architectures: bool, as_json: bool) -> None:
    """List the shipped models, or show one model's sizes, recall, licence and SHA-256."""
    if architectures:
        _architectures(as_json)
        return
    cards = [zoo.card(name)] if name is not None else [zoo.card(each) for each in zoo.names()]
    if as_json:
        print_json(cards[0] if name is not None else cards)
    elif name is None:
        print_table(
            ["model", "head", "frame", "descriptor", "MB", "MACs k=1", "MACs k=.2", "licence"],
            [_row(card) for card in cards],
            right=("MB", "MACs k=1", "MACs k=.2"),
        )
    else:
        zoo.path(name)
        _details(cards[0])


def _row(card: dict[str, Any]) -> list[str]:
    return [
        card["name"],
        card["head"],
        f"{card['image_px']} px",
        str(card["descriptor_size"]),
        f"{card['model_mb']:.2f}",
        f"{card['macs']['1.0'] / 1e6:.0f} M",
        f"{card['macs']['0.2'] / 1e6:.0f} M",
        str(card.get("licence", "-")),
    ]


def _details(card: dict[str, Any]) -> None:
    rows = [
        ["model", card["name"]],
        ["frame", f"{card['image_px']} px square"],
        ["parameters", f"{card['parameters'] / 1e6:.2f} M"],
        ["descriptor", f"{card['descriptor_size']} numbers, head {card['head']}"],
        ["deployed", f"{card['model_mb']} MB of weights"],
    ]
    rows += [[f"MACs k={k}", f"{value / 1e6:.1f} M"] for k, value in card["macs"].items()]
    rows += [[fact, str(card[fact])] for fact in _FACTS if fact in card]
    rows += [
        [f"{kind} file", f"{f['bytes']} bytes, {f['sha256']}"] for kind, f in card["files"].items()
    ]
    rows += [["note", str(text)] for text in card.get("notes", [])]
    width = max(len(row[0]) for row in rows)
    for title, text in rows:
        say(f"{title:<{width}}  {text}")
    for protocol, table in card.get("recall", {}).items():
        ks = list(next(iter(table.values())))
        console().print(f"\nrecall on {protocol}, percent")
        print_table(
            ["", *(f"k={k}" for k in ks)],
            [[row, *(f"{values[k]:.1f}" for k in ks)] for row, values in table.items()],
            right=tuple(f"k={k}" for k in ks),
        )


def _architectures(as_json: bool) -> None:
    from tatvpr_edge.models import registry

    configs = [registry.config(name) for name in registry.names()]
    if as_json:
        print_json([config.to_dict() for config in configs])
        return
    print_table(
        ["name", "frame", "patch", "width", "depth", "heads", "head"],
        [
            [
                config.name,
                f"{config.backbone.image_px} px",
                str(config.backbone.patch),
                str(config.backbone.dim),
                str(config.backbone.depth),
                str(config.backbone.heads),
                config.head.kind,
            ]
            for config in configs
        ],
    )
