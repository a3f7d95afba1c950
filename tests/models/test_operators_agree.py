"""torch and the ONNX bodies under stock ONNX Runtime compute what the reference computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from support.golden_cases import cases
from tatvpr_edge.models.export import bodies
from tatvpr_edge.models.nn import quant
from tatvpr_edge.models.nn.config import SCOPES
from tatvpr_edge.models.nn.layers import PatchEmbed
from tatvpr_edge.models.registry import config
from tatvpr_edge.spec import floats, reference
from tatvpr_edge.spec.golden import Case
from tatvpr_edge.spec.operators import DOMAIN, OPERATORS, OPSET, VERSION
from tatvpr_edge.spec.packing import unpack_ternary

CASES = list(cases())
KINDS = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "float32": TensorProto.FLOAT,
}


def assert_agrees(case: Case, got: dict[str, np.ndarray[Any, Any]]) -> None:
    for name, wanted in case.outputs.items():
        assert got[name].shape == wanted.shape, name
        if wanted.dtype == np.int8:
            np.testing.assert_array_equal(got[name], wanted, err_msg=name)
        else:
            tolerance = 0.0 if case.tolerance is None else case.tolerance
            assert (np.abs(got[name] - wanted) <= tolerance).all(), name


def body_of(operator: str) -> onnx.FunctionProto:
    return next(body for body in bodies.bodies(65) if body.name == operator)


def run_body(case: Case) -> dict[str, np.ndarray[Any, Any]]:
    """The case's operator as a whole ONNX model with its body inside."""
    operator = OPERATORS[case.operator]
    outputs = [name for name, _, _ in operator.outputs]
    node = helper.make_node(
        operator.name, list(case.inputs), outputs, domain=DOMAIN, **case.attributes
    )
    graph = helper.make_graph(
        [node],
        "case",
        [
            helper.make_tensor_value_info(name, KINDS[str(value.dtype)], value.shape)
            for name, value in case.inputs.items()
        ],
        [helper.make_tensor_value_info(name, KINDS[k], None) for name, k, _ in operator.outputs],
    )
    model = helper.make_model(
        graph,
        ir_version=10,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[body_of(operator.name)],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(outputs, session.run(outputs, case.inputs), strict=True))


def run_torch(case: Case) -> dict[str, np.ndarray[Any, Any]]:
    """The case through the functions that training and evaluation use, as a batch of two equal
    frames, of which the second is returned: frames must not see each other."""
    x = {name: torch.from_numpy(np.asarray(value)) for name, value in case.inputs.items()}

    def twice(value: torch.Tensor) -> torch.Tensor:
        return torch.stack([value * 0 + 1, value]) if value.ndim > 1 else value

    if case.operator == "TopKGate":
        batch = twice(x["X"])
        q, s = quant.quantise(batch)
        mask = quant.gate_mask(
            q,
            torch.stack([torch.tensor(0.5), x["k"]]),
            case.attributes["group"],
            SCOPES[case.attributes["scope"]],
        )
        q = q if mask is None else q * mask
        return {"Q": q[1].numpy().astype(np.int8), "S": s[1].numpy()}
    if case.operator == "TernaryMatMul":
        w = torch.from_numpy(unpack_ternary(case.inputs["W"], x["Q"].shape[-1])).float()
        y = torch.matmul(x["Q"].float(), w.T) * x["S"] * x["scale"] + x["bias"]
        return {"Y": y.numpy()}
    if case.operator == "QuantAttention":
        y, a = quant.quant_attention(twice(x["QKV"]), case.attributes["heads"], exact=True)
        return {"Y": y[1].numpy(), "A": a[1].numpy()}
    if case.operator == "KeepTokens":
        y, looked = twice(x["X"]), torch.stack([x["A"], x["A"]])
        kept = quant.kept_tokens(looked, float(x["tokens"]))
        return {"Y": (y if kept is None else quant.take_tokens(y, kept))[1].numpy()}
    raise AssertionError(case.operator)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_body_under_stock_onnx_runtime(case: Case) -> None:
    assert_agrees(case, run_body(case))


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.operator != "PatchEmbed"], ids=lambda case: case.name
)
def test_torch(case: Case) -> None:
    assert_agrees(case, run_torch(case))


def test_every_operator_has_a_body_with_its_signature() -> None:
    written = {body.name: body for body in bodies.bodies(65)}
    assert set(written) == set(OPERATORS)
    for name, operator in OPERATORS.items():
        assert list(written[name].input) == [i for i, _, _ in operator.inputs]
        assert list(written[name].output) == [o for o, _, _ in operator.outputs]
        required = [a for a, default in operator.attributes.items() if default is None]
        assert list(written[name].attribute) == required
        defaults = {a.name: a.i for a in written[name].attribute_proto}
        assert defaults == {a: d for a, d in operator.attributes.items() if d is not None}


def test_torch_exponential_has_the_bits_of_the_specification() -> None:
    x = -np.concatenate([np.linspace(0, 90, 20001), np.geomspace(1e-8, 1e3, 2001)])
    x = x.astype(np.float32)
    got = quant.exp32(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(got, floats.exp32(x))


def test_ternary_layer_is_gate_and_product() -> None:
    from tatvpr_edge.models.nn.layers import Gate, TernaryLayer
    from tatvpr_edge.spec.packing import pack_ternary

    torch.manual_seed(0)
    x = torch.randn(3, 9, 40)
    ks = torch.tensor([0.1, 0.45, 1.0])
    for rows in (False, True):
        layer = TernaryLayer(40, 24, group=4, row_scales=rows)
        torch.nn.init.normal_(layer.bias)
        got = layer(x, Gate(ks)).detach().numpy()
        w, scale = quant.ternarise(layer.weight.detach(), rows)
        packed = pack_ternary(w.numpy().astype(np.int8))
        for frame in range(3):
            q, s = reference.top_k_gate(x[frame].numpy(), float(ks[frame]), 4, 0)
            wanted = reference.ternary_mat_mul(
                q, s, packed, scale.numpy(), layer.bias.detach().numpy()
            )
            np.testing.assert_allclose(got[frame], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("patch", [4, 16, 32])
def test_patch_embedding(patch: int) -> None:
    """torch against the reference, from float weights; 32 px needs sums beyond 2^24."""
    settings = config("micro", image_px=64, patch=patch, dim=24, heads=3).backbone
    torch.manual_seed(1)
    embed = PatchEmbed(settings)
    torch.nn.init.normal_(embed.bias)
    with torch.no_grad():
        embed.weight[5] = 0
    frame = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    w, scale, bias = reference.quantise_patch_embed(
        embed.weight.detach().numpy(),
        embed.bias.detach().numpy(),
        np.array(settings.mean),
        np.array(settings.std),
    )
    got_w, got_scale, got_bias = (t.detach().numpy() for t in embed.quantised())
    np.testing.assert_array_equal(got_w, w)
    np.testing.assert_array_equal(got_scale, scale)
    np.testing.assert_allclose(got_bias, bias, rtol=1e-6)
    wanted = reference.patch_embed(frame[0].numpy(), w, scale, got_bias)
    np.testing.assert_allclose(embed(frame)[0].detach().numpy(), wanted, rtol=1e-6, atol=1e-6)


def test_many_tokens_are_summed_in_float64() -> None:
    tokens = 1041
    wide = next(b for b in bodies.bodies(tokens) if b.name == "QuantAttention")
    narrow = next(b for b in bodies.bodies(tokens - 1) if b.name == "QuantAttention")

    def kind(body: onnx.FunctionProto) -> int:
        cast = next(n for n in body.node if n.output[0] == "E_w")
        return int(cast.attribute[0].i)

    assert (kind(narrow), kind(wide)) == (TensorProto.FLOAT, TensorProto.DOUBLE)
    # All attention on equal values: the largest possible sums.
    qkv = np.ones((1, tokens, 12), np.float32)
    y, _ = quant.quant_attention(torch.from_numpy(qkv), 1, exact=True)
    wanted, _ = reference.quant_attention(qkv[0], 1)
    np.testing.assert_array_equal(y[0].numpy(), wanted)
