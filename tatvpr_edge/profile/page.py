"""The frame of our HTML pages: one file, no script, no network, any theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f7f8fa; --ink: #1c2430;
  --soft: #5b6675; --grid: #dfe3e8; --warn: #9a3412;
  --c0: #2563a8; --c1: #c2571a; --c2: #2f855a; --c3: #8b4fb3; --c4: #b7791f; --c5: #3f8f9b;
  --c6: #8a94a3; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181e; --card: #1c222b; --ink: #e6eaf0;
  --soft: #9aa6b5; --grid: #333c48; --warn: #fdba74;
  --c0: #6ba7e8; --c1: #ee9560; --c2: #68c394; --c3: #c08be0; --c4: #e0b050; --c5: #6cc0cc;
  --c6: #7d8896; } }
body { margin: 0 auto; padding: 28px 20px 60px; max-width: 1020px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "DejaVu Sans", sans-serif; }
h1 { font-size: 24px; margin: 0 0 2px; } h2 { font-size: 17px; margin: 34px 0 10px; }
p { margin: 6px 0; } .soft { color: var(--soft); } .warn { color: var(--warn); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 9px; border-bottom: 1px solid var(--grid); }
th { font-weight: 600; color: var(--soft); font-size: 13px; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
.scroll { overflow-x: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
"""


def html_page(title: str, body: Sequence[str], style: str = "") -> str:
    """A whole page. ``body`` is HTML; ``title`` is text."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}{style}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )
