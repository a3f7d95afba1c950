"""The governor keeps every rule, and no rule can change without one of these failing."""

from __future__ import annotations

import ctypes
import re
import shutil
from pathlib import Path

import governor_bench as bench
import governor_rules  # noqa: F401, its rules join bench.RULES
import governor_rules_switching  # noqa: F401
import pytest

from tatvpr_edge.compilers.core_sources import governor_sources
from tatvpr_edge.compilers.governor import build_governor
from tatvpr_edge.runtime.governor import CGovernor, GovernorCore


@pytest.mark.parametrize("rule", bench.RULES, ids=lambda rule: rule.__name__)
def test_rule(core: GovernorCore, rule: bench.Rule) -> None:
    rule(core)


SOURCE = governor_sources()[0].parent
CONSTANTS = re.findall(
    r"    t->(\w+) = ([\d.]+);", (SOURCE / "tatvpr_governor_observer.c").read_text()
)


def fails(core: GovernorCore) -> bool:
    """Whether any rule fails."""
    for rule in bench.RULES:
        try:
            rule(core)
        except (AssertionError, IndexError, StopIteration):
            return True
    return False


# How fast these two filters are shows in how well the gain is learned and how far a new load is
# guessed ahead, not in any single decision: the simulated boards hold that.
GRADUAL = {("slow_tau_s", 0.6), ("slow_tau_s", 1.6), ("quick_tau_s", 0.6)}


@pytest.mark.parametrize(
    ("name", "value", "factor"),
    [(*one, f) for one in CONSTANTS for f in (0.6, 1.6) if (one[0], f) not in GRADUAL],
)
def test_no_constant_changes_unseen(
    core: GovernorCore, monkeypatch: pytest.MonkeyPatch, name: str, value: str, factor: float
) -> None:
    """The constants follow level and reason in the structure, in the order of their assignment."""
    slot = 1 + [constant for constant, _ in CONSTANTS].index(name)

    def tamper(governor: CGovernor) -> None:
        assert slot in (1, 6) or governor._state[slot] == float(value)  # two are a preference's
        governor._state[slot] *= factor

    monkeypatch.setattr(bench, "TAMPER", tamper)
    assert fails(core), "the constant was changed, and every rule is kept all the same"


DECIDES, KNOWS = "tatvpr_governor.c", "tatvpr_governor_observer.c"
MUTANTS = [
    (DECIDES, "(MAX_SWITCHES - 1)", "MAX_SWITCHES"),
    (DECIDES, "(MAX_SWITCHES - 2)", "MAX_SWITCHES"),
    (DECIDES, "        level = 0; /* the last", "        /* the last"),
    (DECIDES, "bar_s *= 2.0;", "bar_s += 30.0;"),
    (DECIDES, "    if (g->level != g->raised_to) {\n        return;\n    }\n", ""),
    (DECIDES, "        g->fails = 0;\n", ""),
    (DECIDES, "    note_failure(g, now_s, g->t.fail_window_s);\n", ""),
    (DECIDES, "        note_failure(g, now_s, g->t.step_fail_window_s);\n", ""),
    (DECIDES, "? g->block_level - 1 : level", "? level : level"),
    (DECIDES, "not_barred(g, now_s, tatvpr_observer_highest(g, load, up_target))",
     "tatvpr_observer_highest(g, load, up_target)"),
    (DECIDES, "        load = g->quick - ", "        load = 0.0 * "),
    (DECIDES, "target - repay, target, may_rise", "target, target, may_rise"),
    (DECIDES, "target - repay, target, may_rise", "target - repay, target, 1"),
    (KNOWS, "g->gain += 0.5 * (seen - g->gain);", ""),
    (DECIDES, " || g->debt > allowed + single", ""),
    (DECIDES, "g->sum_seen < 3.0", "g->sum_seen < 1.0"),
    (DECIDES, "mean_ms < 0.6 * g->budget", "mean_ms < 0.9 * g->budget"),
    (DECIDES, "g->filtered < 0.88 * g->limit", "g->filtered < 0.99 * g->limit"),
    (DECIDES, " / g->sum_seen + tatvpr_observer_search_ms(g)", " / g->sum_seen"),
    (DECIDES, "    if (best <= g->level || !may_rise) {", "    if (best <= g->level) {"),
    (DECIDES, "tatvpr_observer_highest(g, tatvpr_observer_peak(g), up_target)",
     "tatvpr_observer_highest(g, load, up_target)"),
    (DECIDES, "    } else if (lost(g, now_s)) {", "    } else if (0) {"),
    (DECIDES, "        g->debt = 0.0;\n", ""),
    (KNOWS, "#define SWITCH_WINDOW_S 60.0", "#define SWITCH_WINDOW_S 50.0"),
    (KNOWS, "    if (busy > 0.9) {", "    if (0) {"),
    (KNOWS, "    return rate > most ? most : rate;", "    return rate;"),
    (KNOWS, " + tatvpr_observer_search_ms(g);\n}", ";\n}"),
    (KNOWS, "x->power_mw <= 0.0", "x->power_mw < 0.0"),
    (KNOWS, "            stretch = g->t.most_stretch;\n", ""),
    (KNOWS, "        stretch = 2.0 / (rate * g->t.power_tau_s);", "        stretch = 1.0;"),
    (KNOWS, "slope * (3.0 + g->t.lead_s)", "slope * g->t.lead_s"),
    (KNOWS, "        seen = 0.5;\n", ""),
    (KNOWS, "        seen = 2.0;\n", ""),
    (KNOWS, "g->switches[i] = now_s;", "g->switches[i] = LONG_AGO;"),
    (KNOWS, "        g->seen_s = LONG_AGO;\n", ""),
    (KNOWS, "left_s > floor_s ? left_s : floor_s", "left_s"),
    (KNOWS, "    if (dt > g->t.gap_s) {", "    if (0) {"),
    (KNOWS, "            g->debt = cap;\n", "            ;\n"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new"), MUTANTS)
def test_no_rule_changes_unseen(tmp_path: Path, file: str, old: str, new: str) -> None:
    copy = tmp_path / "governor"
    shutil.copytree(SOURCE, copy)
    text = (copy / file).read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    (copy / file).write_text(text.replace(old, new))
    library = build_governor(sorted(copy.glob("*.c")), tmp_path)
    assert fails(GovernorCore(ctypes.CDLL(str(library)))), "the rule was changed, and none fails"
