"""The HTML report: complete, self-contained, and shown by a real browser without an error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from support.browser import browse
from tatvpr_edge.profile.plots import Mark, Series, line_plot, nice_ticks, stacked_bars
from tatvpr_edge.profile.report import pareto_front, to_html

Make = Callable[..., dict[str, Any]]

PLOTS = (
    "plot-latency",
    "plot-energy",
    "plot-macs",
    "plot-recall",
    "plot-pareto-latency",
    "plot-pareto-energy",
    "plot-layers",
)

# Appended to a copy of the page: tells what the browser made of it, in the page itself.
PROBE = """<script>
window.addEventListener("load", () => {
  const seen = {};
  for (const svg of document.querySelectorAll("svg.plot")) {
    const box = svg.getBoundingClientRect();
    const inside = [...svg.querySelectorAll("circle, rect, text")].every((part) => {
      const own = part.getBoundingClientRect();
      return own.left >= box.left - 1 && own.right <= box.right + 1
        && own.top >= box.top - 1 && own.bottom <= box.bottom + 1;
    });
    seen[svg.id] = {x: box.x, y: box.y + window.scrollY, width: box.width, height: box.height,
      marks: svg.querySelectorAll(".mark, .bar, .void").length, inside: inside};
  }
  const wide = document.documentElement.scrollWidth > window.innerWidth;
  const answer = document.createElement("script");
  answer.id = "answer"; answer.type = "application/json";
  answer.textContent = JSON.stringify({seen: seen, wide: wide});
  document.body.append(answer);
});
</script></body>"""


class Links(HTMLParser):
    """Every address that a page would load, and whether tags are balanced."""

    VOID = ("meta", "link", "br", "line", "circle", "rect", "polyline", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "xlink:href"):
                self.found.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("energy", [True, False])
def test_the_page_is_whole_and_needs_nothing_else(make_document: Make, energy: bool) -> None:
    page = to_html(make_document(energy=energy))
    links = Links()
    links.feed(page)
    assert not links.open
    assert links.found == ["data:,"]
    assert "<script" not in page
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)
    for name in PLOTS:
        assert f'id="{name}"' in page


def test_missing_measurements_say_why(make_document: Make) -> None:
    page = to_html(make_document(energy=False, recall=False))
    assert "latency only: no power source &lt;&amp;&gt;" in page.replace("\n", " ").lower()
    assert "recall was not measured" in page
    assert page.count('class="void"') == 4  # energy, recall and both fronts


def test_invalid_points_are_drawn_hollow(make_document: Make) -> None:
    assert 'class="mark hollow' not in to_html(make_document())
    page = to_html(make_document(invalid=(0.4,)))
    assert 'class="mark hollow' in page
    assert "the clock fell" in page


def test_every_svg_is_well_formed(make_document: Make) -> None:
    page = to_html(make_document())
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(svgs) == len(PLOTS)
    for svg in svgs:
        ElementTree.fromstring(svg)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_enclose(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert ticks[0] <= low + slack and ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(ticks)


@given(
    st.lists(
        st.tuples(st.floats(0.01, 1.0), st.floats(0, 1e6), st.booleans()), min_size=1, max_size=20
    ),
    st.text(max_size=20),
)
def test_any_data_make_a_well_formed_plot(data: list[tuple[float, float, bool]], name: str) -> None:
    text = "".join(char for char in name if char.isprintable())
    marks = [Mark(x, y, label=text, hollow=hollow, spread=y * 1.1) for x, y, hollow in data]
    ElementTree.fromstring(line_plot("x", text, "a", "b", [Series(text, marks), Series("", ())]))
    ElementTree.fromstring(stacked_bars("x", text, "ms", [(text, [(text, y) for _, y, _ in data])]))


def test_pareto_front() -> None:
    points = [(1.0, 80.0), (2.0, 90.0), (3.0, 85.0), (4.0, 95.0), (5.0, 95.0)]
    assert pareto_front(points) == [0, 1, 3]
    assert pareto_front([(1.0, 5.0), (1.0, 5.0)]) == [0, 1]
    assert pareto_front([]) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("energy", "size"), [(True, (1100, 2300)), (False, (1100, 2300)), (True, (400, 3800))]
)
def test_a_browser_shows_every_plot_without_an_error(
    make_document: Make, tmp_path: Path, energy: bool, size: tuple[int, int]
) -> None:
    page = to_html(make_document(energy=energy, invalid=(0.4,)))
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("</body>", PROBE), encoding="utf-8")
    shot = tmp_path / "report.png"
    window = f"--window-size={size[0]},{size[1]}"
    dumped = browse(probed, window, "--dump-dom")
    assert "CONSOLE" not in dumped.stderr  # neither errors nor warnings of the page
    match = re.search(r'id="answer"[^>]*>(.*?)</script>', dumped.stdout, re.DOTALL)
    assert match is not None
    answer = json.loads(match[1])
    assert not answer["wide"]
    assert set(answer["seen"]) == set(PLOTS)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    taken = browse(tmp_path / "report.html", window, f"--screenshot={shot}")
    assert "CONSOLE" not in taken.stderr
    with Image.open(shot) as image:
        assert image.size == size
        for name, box in answer["seen"].items():
            assert box["marks"] > 0 and box["width"] > 300 and box["height"] > 180, name
            assert box["inside"], f"{name}: something is drawn outside its plot"
            x, y = int(box["x"]), int(box["y"])
            region = image.crop((x, y, x + int(box["width"]), y + int(box["height"])))
            colours = region.convert("RGB").getcolors(maxcolors=1 << 20)
            assert colours is not None and len(colours) > 20, f"{name} is blank in the screenshot"


@pytest.mark.slow
def test_the_browser_check_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text("<script>undefined_name.call()</script>")
    assert "CONSOLE" in browse(page, "--dump-dom").stderr
