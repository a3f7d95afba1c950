"""In evaluation torch computes what a device computes, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.tools import require_tool
from tatvpr_edge import zoo
from tatvpr_edge.models.checkpoint import load_weights
from tatvpr_edge.models.nn import exact
from tatvpr_edge.spec import floats, reference


def same_bits(got: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(got.detach().numpy().view(np.uint32), wanted.view(np.uint32))


def numbers(seed: int, rows: int, width: int, size: float) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, width)) * size).astype(np.float32)


@given(seed=st.integers(0, 10**6), width=st.integers(1, 200), size=st.sampled_from([1e-4, 1, 40]))
def test_functions_have_the_bits_of_the_specification(seed: int, width: int, size: float) -> None:
    x = numbers(seed, 3, width, size)
    t = torch.from_numpy(x)
    positive = np.abs(x) + np.float32(1e-9)
    same_bits(exact.exp32(t), floats.exp32(x))
    same_bits(exact.log32(torch.from_numpy(positive)), floats.log32(positive))
    same_bits(exact.erf32(t), floats.erf32(x))
    same_bits(exact.sum32(t), floats.sum32(x))
    same_bits(exact.sqrt32(torch.from_numpy(positive)), np.sqrt(positive))


@given(seed=st.integers(0, 10**6), width=st.integers(1, 200), size=st.sampled_from([1e-4, 1, 40]))
def test_layers_have_the_bits_of_the_reference(seed: int, width: int, size: float) -> None:
    x = numbers(seed, 5, width, size)
    t = torch.from_numpy(x)
    norm = exact.LayerNorm(width, eps=reference.LAYER_NORM_EPS).eval()
    gamma, beta = numbers(seed + 1, 2, width, 1.0)
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(gamma))
        norm.bias.copy_(torch.from_numpy(beta))
    same_bits(norm(t), reference.layer_norm(x, gamma, beta))
    same_bits(exact.gelu(t, training=False), reference.gelu(x))
    same_bits(exact.gem(t[None], training=False)[0], reference.gem(x))
    same_bits(exact.unit_length(t[:1], training=False)[0], reference.l2_normalize(x[0]))


@pytest.mark.parametrize("layer", [exact.gelu, exact.gem, exact.unit_length])
def test_training_differs_by_rounding_only(layer: Callable[..., torch.Tensor]) -> None:
    x = torch.from_numpy(numbers(0, 6, 48, 1.0))
    x = x[None] if layer is exact.gem else x
    torch.testing.assert_close(layer(x, True), layer(x, False), rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_shipped_weights_in_torch_give_the_bytes_of_their_artifact(
    name: str, tmp_path: Path
) -> None:
    """So recall measured in torch is the recall of what is deployed, to the last answer."""
    require_tool("gcc", "gcc")
    from tatvpr_edge.boards.loader import load
    from tatvpr_edge.compilers.checks import checked_graph
    from tatvpr_edge.compilers.golden import synthetic_frame
    from tatvpr_edge.compilers.linux import compile_linux, open_library
    from tatvpr_edge.compilers.tvm.lower import lower
    from tatvpr_edge.runtime.frame import check_frame

    lowered = lower(checked_graph(zoo.path(name)), name)
    library = open_library(compile_linux(lowered, load("host"), tmp_path / "host"), lowered)
    model = load_weights(zoo.path(name).with_suffix(".safetensors")).eval()
    side = lowered.matched.image_size
    for seed, k in enumerate((1.0, 0.6, 0.4, 0.2, 0.1)):
        frame = synthetic_frame(seed, side, side)
        for tokens in (1.0, 0.5):
            wanted = library.describe(check_frame(frame), k, tokens).descriptor
            with torch.no_grad():
                got = model(torch.from_numpy(frame)[None], k, tokens)[0]
            same_bits(got, wanted)
