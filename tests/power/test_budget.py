"""What a user may write as a budget, and what is refused in one line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatvpr_edge.runtime.governor import Budget, Kind
from tatvpr_edge.spec.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("5W", Kind.POWER, 5000),
        (" 0.8 W ", Kind.POWER, 800),
        ("800mW", Kind.POWER, 800),
        ("0.2J", Kind.ENERGY, 200),
        ("50mJ", Kind.ENERGY, 50),
        ("40ms", Kind.LATENCY, 40),
        ("1s", Kind.LATENCY, 1000),
        ("70C", Kind.TEMPERATURE, 70),
        ("70°C", Kind.TEMPERATURE, 70),
        ("battery:2h", Kind.BATTERY, 7200),
        ("battery:90min", Kind.BATTERY, 5400),
        ("battery: 1h30m", Kind.BATTERY, 5400),
        ("battery:45s", Kind.BATTERY, 45),
        ("5e-1W", Kind.POWER, 500),
    ],
)
def test_forms(text: str, kind: Kind, limit: float) -> None:
    budget = Budget.parse(text)
    assert (budget.kind, budget.limit) == (kind, pytest.approx(limit))


def test_the_size_of_a_battery_that_tells_percent_only() -> None:
    budget = Budget.parse("battery:2h@50Wh")
    assert (budget.battery_until_s, budget.battery_wh) == (7200, 50)


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "5",
        "W",
        "5 kW",
        "5w",
        "-5W",
        "0W",
        "nanW",
        "1e999W",
        "battery:",
        "battery:2",
        "batt:2h",
        "battery:2h@50",
        "battery:2h@50W",
        "5W 5W",
        "battery:2h junk",
        "ms40",
        "5mw",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Budget.parse(text)
    assert "\n" not in str(caught.value)
    assert "5W" in str(caught.value) or "above 0" in str(caught.value)


def test_exactly_one_limit() -> None:
    with pytest.raises(UsageError, match="exactly one limit, not none"):
        Budget()
    with pytest.raises(UsageError, match="not power_w, latency_ms"):
        Budget(power_w=5, latency_ms=40)
    with pytest.raises(UsageError, match="battery_until_s"):
        Budget(power_w=5, battery_wh=10)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "5", True])
def test_a_limit_is_a_finite_positive_number(value: object) -> None:
    with pytest.raises(UsageError):
        Budget(power_w=value)  # type: ignore[arg-type]


@given(st.text(max_size=30))
def test_any_text_is_a_budget_or_a_usage_error(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except UsageError:
        return
    assert budget.limit > 0


@given(
    st.floats(0.001, 1e7), st.sampled_from(["5W", "5J", "5ms", "5C", "battery:5s"]), st.booleans()
)
def test_what_is_printed_can_be_read(value: float, form: str, sized: bool) -> None:
    """A service says what is set; of energies and batteries it could not be told to it again."""
    name = next(n for n, given in vars(Budget.parse(form)).items() if given is not None)
    size = {"battery_wh": value} if sized and name == "battery_until_s" else {}
    made = Budget(**{name: value}, **size)
    read = Budget.parse(str(made))
    assert (read.kind, read.battery_wh is None) == (made.kind, made.battery_wh is None)
    assert read.limit == pytest.approx(made.limit, rel=1e-9)
