"""Every page that our tools write is shown by a real browser in some test."""

from __future__ import annotations

from pathlib import Path

#: Who writes a page, and the tests in which a browser shows it.
SHOWN = {
    "tatvpr_edge/cli/answers.py": "tests/cli/test_two_folders.py",
    "tatvpr_edge/cli/finetune_page.py": "tests/training/test_finetune.py",
    "tatvpr_edge/profile/report.py": "tests/profile/test_report.py",
}
FRAME = "tatvpr_edge/profile/page.py"
ROOMS = ("tatvpr_edge", "models", "compilers", "runtime", "tools")


def test_every_page_is_shown_by_a_browser(project_root: Path) -> None:
    writers, whole = set(), set()
    for path in (p for room in ROOMS for p in (project_root / room).rglob("*.py")):
        name, text = path.relative_to(project_root).as_posix(), path.read_text(encoding="utf-8")
        if "</html>" in text.lower():
            whole.add(name)
        if "html_page(" in text and name != FRAME:
            writers.add(name)
    # Links to rooms inside the package are walked by no rglob: each file is met once.
    assert whole == {FRAME}, "pages have one frame"
    assert writers == set(SHOWN)
    for test in SHOWN.values():
        assert "browse(" in (project_root / test).read_text(encoding="utf-8"), test
