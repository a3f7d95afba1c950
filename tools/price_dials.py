"""What each setting of both dials costs on boards that are not at hand, into the models' cards.

    python tools/price_dials.py micro nano mini

For every setting of a card's ``frontier`` (models/ship.py): estimated million cycles of a frame on
the model of Cortex-A76 (Neoverse N1, as ``tools/arm_counts.py`` prints them) and on a Cortex-M7
(``tools/mcu_counts.py``, board mps2-an500), or on a Cortex-M55 (mps3-an547) where the model does
not fit there. All run the model in an emulator: QEMU, the cross compilers and LLVM 19 are needed,
and nothing here is a frame rate.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from given import one_line, tool_parser

from tatvpr_edge import plan, zoo
from tatvpr_edge.models.checkpoint import write_atomically
from tatvpr_edge.models.ship import as_markdown
from tatvpr_edge.spec.errors import BoardError

TOOLS = Path(__file__).resolve().parent
A76 = "n1"
#: Emulated boards by how their memory grows, and their cores.
MCUS = {"mps2-an500": "Cortex-M7", "mps3-an547": "Cortex-M55"}


def printed(tool: str, *words: str) -> dict[str, float]:
    """The figures that one of our tools prints.

    Raises:
        SystemExit: it failed, and said why.
    """
    done = subprocess.run(
        [sys.executable, str(TOOLS / tool), *words, "--json"], stdout=subprocess.PIPE
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def smallest_mcu(name: str) -> str:
    """The first of ``MCUS`` that has the memory for a model.

    Raises:
        BoardError: none has.
    """
    *smaller, largest = MCUS
    for board in smaller:
        try:
            plan(board, model=name)
            return board
        except BoardError as error:
            print(f"{error}: the next larger microcontroller is taken", file=sys.stderr)
    plan(largest, model=name)
    return largest


def price(card: dict[str, Any]) -> None:
    """Put ``million_cycles`` into every setting of a card's frontier."""
    name, settings = card["name"], card["frontier"]
    mcu = smallest_mcu(name)
    counted = printed("mcu_counts.py", "--board", mcu, "--model", name, "--no-layers")
    a76 = {}
    for tokens in sorted({s["tokens"] for s in settings}, reverse=True):
        ks = [f"{s['k']:g}" for s in settings if s["tokens"] == tokens]
        words = ["--model", name, "--core", A76, "--no-peers", "--tokens", f"{tokens:g}"]
        made = printed("arm_counts.py", *words, "--k", *ks)
        a76 |= {(float(k), tokens): made[f"{A76}.{name}.ours_k{k}"] for k in ks}
    for s in settings:
        part = "" if s["tokens"] == 1 else f".tokens{s['tokens']:g}"
        s["million_cycles"] = {
            "Cortex-A76": a76[s["k"], s["tokens"]],
            MCUS[mcu]: counted[f"{mcu}.frame.{name}.cycles.k{s['k']:g}{part}"],
        }


@one_line
def main() -> int:
    """Rewrites the cards."""
    parser = tool_parser(__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(zoo.names()))
    cards = {name: zoo.card(name) for name in parser.parse_args().names}
    for name, card in cards.items():
        path = zoo.path(name).with_suffix(".json")
        price(card)
        write_atomically(path, (json.dumps(card, indent=1) + "\n").encode())
        write_atomically(path.with_suffix(".md"), as_markdown(card).encode())
        print(f"{path}: {len(card['frontier'])} settings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
