"""Learned heads as small as the backbones of these tests."""

SMALL_HEADS: dict[str, dict[str, object]] = {
    "boq": {"queries": 6, "rows": 4},
    "salad": {"clusters": 5, "channels": 8, "summary": 8, "hidden": 16},
    "mixvpr": {"channels": 12, "rows": 3, "layers": 2},
}
