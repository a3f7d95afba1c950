"""Which matmul a layer gets at a k: from the layer's shape and the costs of this CPU's family."""

from __future__ import annotations

import pytest
from core_driver import Driver

SHAPES = ((192, 192), (192, 576), (192, 768), (768, 192), (384, 384), (384, 1536), (1536, 384))


def test_every_variant_has_a_point_between_few_channels_and_all(native: Driver) -> None:
    for kernels in native.kernels:
        for shape in SHAPES:
            for group in (1, 4):
                assert 0.1 < native.sparse_below(kernels, *shape, group) <= 1.0, (kernels, shape)


def test_a_row_that_is_one_group_is_worth_no_k(native: Driver) -> None:
    """It stays whole; `tatvpr_k_pays_below` of a model counted it among what k makes cheaper."""
    for kernels in native.kernels:
        assert native.sparse_below(kernels, 192, 192, 192) == 0.0, kernels


def test_the_point_follows_the_shape_and_the_group(native: Driver) -> None:
    """A layer whose outputs end in a narrow block is another trade than one of whole blocks; a
    listed four of channels costs less than four listed channels."""
    if "avx2" not in native.kernels:
        pytest.skip("costs are recorded for the variants of x86-64")
    narrow = native.sparse_below("avx2", 192, 192, 1)
    whole = native.sparse_below("avx2", 1536, 384, 1)
    assert abs(narrow - whole) > 0.02
    for shape in SHAPES:
        assert native.sparse_below("avx2", *shape, 4) > native.sparse_below("avx2", *shape, 1)
