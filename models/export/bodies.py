"""The operators of ``ai.tatvpr`` as ONNX functions in standard operators.

They travel inside every exported file, so that a stock ONNX Runtime runs it, and they are the
reference for whole graphs. Written in ONNX's own text syntax; numerics as in docs/numerics.md:
whole numbers are multiplied as float32 where the sum stays below 2^24, else as float64, which is
exact in any order; TopK breaks ties by the lower index; the exponential is spelled out;
reciprocals are ``Div(1, s)``, because an engine may approximate ONNX's Reciprocal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import parser

from tatvpr_edge.spec import floats
from tatvpr_edge.spec.operators import DOMAIN, OPSET

_EXACT_FLOAT32 = 2**24
# Powers of two that exp32 needs for arguments <= 0.
_LOWEST_POWER = -126


def _text(values: Sequence[float | np.float32]) -> str:
    """Floats so that parsing them gives the same float32 (or float64) back."""
    return ", ".join(repr(float(v)) for v in values)


_QUANTISE = """
    {x}_abs = Abs({x})
    {x}_max = ReduceMax<keepdims=1>({x}_abs, {axes})
    {x}_floor = Max({x}_max, min_abs_max)
    {s} = Div({x}_floor, quant_max)
    {x}_inverse = Div(unity, {s})
    {x}_ratio = Mul({x}, {x}_inverse)
    {x}_round = Round({x}_ratio)
    {q} = Clip({x}_round, quant_min, quant_max)
"""

_QUANT_CONSTANTS = """
    quant_max = Constant<value = float {127.0}>()
    quant_min = Constant<value = float {-127.0}>()
    min_abs_max = Constant<value = float {1e-5}>()
    unity = Constant<value = float {1.0}>()
    last = Constant<value = int64[1] {-1}>()
"""

# n = clip(floor(float64(fraction) * total + 0.5), 1, total), as int64[1]; `total` is int64[1].
_KEPT = """
    fraction = Cast<to = 11>({fraction})
    total_f = Cast<to = 11>({total})
    half = Constant<value = double {{0.5}}>()
    one_f = Constant<value = double[1] {{1.0}}>()
    wanted = Mul(fraction, total_f)
    raised = Add(wanted, half)
    floored = Floor(raised)
    at_least = Max(floored, one_f)
    at_most = Min(at_least, total_f)
    n = Cast<to = 7>(at_most)
"""

_HEADER = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>\n'


def _function(text: str) -> onnx.FunctionProto:
    return parser.parse_function(_HEADER + text)


def patch_embed() -> onnx.FunctionProto:
    """PatchEmbed; sums in float64, which holds them for every patch size."""
    return _function("""
PatchEmbed (pixels, W, scale, bias) => (Y) {
    shape = Shape(pixels)
    zero = Constant<value = int64[1] {0}>()
    one = Constant<value = int64[1] {1}>()
    two = Constant<value = int64[1] {2}>()
    three = Constant<value = int64[1] {3}>()
    rest = Constant<value = int64[1] {-1}>()
    height = Gather<axis = 0>(shape, zero)
    width = Gather<axis = 0>(shape, one)
    w_shape = Shape(W)
    values = Gather<axis = 0>(w_shape, one)
    area = Div(values, three)
    area_f = Cast<to = 1>(area)
    side_f = Sqrt(area_f)
    side_r = Round(side_f)
    side = Cast<to = 7>(side_r)
    rows = Div(height, side)
    columns = Div(width, side)
    grid = Concat<axis = 0>(rows, side, columns, side, three)
    tiled = Reshape(pixels, grid)
    ordered = Transpose<perm = [0, 2, 1, 3, 4]>(tiled)
    flat_shape = Concat<axis = 0>(rest, values)
    flat = Reshape(ordered, flat_shape)
    colours = Cast<to = 11>(flat)
    middle = Constant<value = double {128.0}>()
    centred = Sub(colours, middle)
    w_f = Cast<to = 11>(W)
    w_t = Transpose<perm = [1, 0]>(w_f)
    acc_d = MatMul(centred, w_t)
    acc = Cast<to = 1>(acc_d)
    scaled = Mul(acc, scale)
    Y = Add(scaled, bias)
}""")


def top_k_gate() -> onnx.FunctionProto:
    """TopKGate; its scores stay below 2^24 for every size that fits a board."""
    return _function(
        """
TopKGate <group: int = 1, scope: int = 0> (X, k) => (Q, S) {"""
        + _QUANT_CONSTANTS
        + _QUANTISE.format(x="X", q="q", s="S", axes="last")
        + """
    group_0 = Constant<value_int: int = @group>()
    group_1 = Reshape(group_0, last)
    scope_0 = Constant<value_int: int = @scope>()
    x_shape = Shape(X)
    width_at = Constant<value = int64[1] {-1}>()
    width = Gather<axis = 0>(x_shape, width_at)
    total = Div(width, group_1)
    leading = Shape<end = -1>(X)
    grouped_shape = Concat<axis = 0>(leading, total, group_1)
    grouped = Reshape(q, grouped_shape)
    sizes = Abs(grouped)
    own = ReduceSum<keepdims = 0>(sizes, last)
    token_axis = Constant<value = int64[1] {-2}>()
    shared = ReduceSum<keepdims = 1>(own, token_axis)
    image = Constant<value = int64 {1}>()
    is_image = Equal(scope_0, image)
    score = Where(is_image, shared, own)
"""
        + _KEPT.format(fraction="k", total="total")
        + """
    best, where = TopK<axis = -1, largest = 1, sorted = 1>(score, n)
    zero = Constant<value = float {0.0}>()
    one = Constant<value = float {1.0}>()
    score_shape = Shape(score)
    dropped = Expand(zero, score_shape)
    where_shape = Shape(where)
    ones = Expand(one, where_shape)
    mask = ScatterElements<axis = -1>(dropped, where, ones)
    mask_1 = Unsqueeze(mask, last)
    kept = Mul(grouped, mask_1)
    flat = Reshape(kept, x_shape)
    Q = Cast<to = 3>(flat)
}"""
    )


def ternary_mat_mul() -> onnx.FunctionProto:
    """TernaryMatMul; ``|acc| <= 127 * K`` stays below 2^24 up to 132,104 inputs."""
    return _function("""
TernaryMatMul (Q, S, W, scale, bias) => (Y) {
    signed = Cast<to = 6>(W)
    range = Constant<value = int32 {256}>()
    shifted = Add(signed, range)
    byte = Mod(shifted, range)
    last = Constant<value = int64[1] {-1}>()
    column = Unsqueeze(byte, last)
    places = Constant<value = int32[4] {1, 4, 16, 64}>()
    moved = Div(column, places)
    four = Constant<value = int32 {4}>()
    codes = Mod(moved, four)
    row_shape = Constant<value = int64[2] {0, -1}>()
    padded = Reshape(codes, row_shape)
    first = Constant<value = int64[1] {0}>()
    q_shape = Shape(Q)
    inputs = Gather<axis = 0>(q_shape, last)
    cut = Slice(padded, first, inputs, last)
    one = Constant<value = int32 {1}>()
    ternary = Sub(cut, one)
    w_f = Cast<to = 1>(ternary)
    w_t = Transpose<perm = [1, 0]>(w_f)
    q_f = Cast<to = 1>(Q)
    acc = MatMul(q_f, w_t)
    by_token = Mul(acc, S)
    by_weight = Mul(by_token, scale)
    Y = Add(by_weight, bias)
}""")


def quant_attention(tokens: int) -> onnx.FunctionProto:
    """QuantAttention for graphs of at most ``tokens`` tokens: with more than 1,040 the sums of
    weighted values pass 2^24 and are taken in float64."""
    wide = 11 if 127 * 127 * tokens >= _EXACT_FLOAT32 else 1
    powers = [2.0**e for e in range(_LOWEST_POWER, 1)]
    horner = ""
    for step, coefficient in enumerate(floats.EXP_POLY[1:], start=1):
        horner += f"""
    p{step}_c = Constant<value = float {{{_text([coefficient])}}}>()
    p{step}_m = Mul(p{step - 1}, r)
    p{step} = Add(p{step}_m, p{step}_c)"""
    return _function(
        """
QuantAttention <heads> (QKV) => (Y, A) {"""
        + _QUANT_CONSTANTS
        + """
    heads_0 = Constant<value_int: int = @heads>()
    heads_1 = Reshape(heads_0, last)
    one = Constant<value = int64[1] {1}>()
    three = Constant<value = int64[1] {3}>()
    zero_1 = Constant<value = int64[1] {0}>()
    shape = Shape(QKV)
    t = Gather<axis = 0>(shape, zero_1)
    width = Gather<axis = 0>(shape, one)
    thirds = Div(width, three)
    head_dim = Div(thirds, heads_1)
    split_shape = Concat<axis = 0>(t, three, heads_1, head_dim)
    split = Reshape(QKV, split_shape)
    ordered = Transpose<perm = [1, 2, 0, 3]>(split)
    q_4, k_4, v_4 = Split<axis = 0, num_outputs = 3>(ordered)
    q_x = Squeeze(q_4, zero_1)
    k_x = Squeeze(k_4, zero_1)
    v_x = Squeeze(v_4, zero_1)
    head_axes = Constant<value = int64[2] {-2, -1}>()
"""
        + _QUANTISE.format(x="q_x", q="q", s="s_q", axes="last")
        + _QUANTISE.format(x="k_x", q="k", s="s_k", axes="head_axes")
        + _QUANTISE.format(x="v_x", q="v", s="s_v", axes="head_axes")
        + f"""
    k_t = Transpose<perm = [0, 2, 1]>(k)
    dots = MatMul(q, k_t)
    dots_q = Mul(dots, s_q)
    dots_k = Mul(dots_q, s_k)
    head_f = Cast<to = 1>(head_dim)
    root = Sqrt(head_f)
    logits = Div(dots_k, root)
    top = ReduceMax<keepdims = 1>(logits, last)
    x = Sub(logits, top)
    lowest = Constant<value = float {{{_text([floats.EXP_LOWEST])}}}>()
    log2_e = Constant<value = float {{{_text([floats.LOG2_E])}}}>()
    ln2_high = Constant<value = float {{{_text([floats.LN2_HIGH])}}}>()
    ln2_low = Constant<value = float {{{_text([floats.LN2_LOW])}}}>()
    powers = Constant<value = float[{len(powers)}] {{{_text(powers)}}}>()
    offset = Constant<value = int64 {{{-_LOWEST_POWER}}}>()
    clipped = Max(x, lowest)
    n_scaled = Mul(clipped, log2_e)
    n_f = Round(n_scaled)
    n_high = Mul(n_f, ln2_high)
    n_low = Mul(n_f, ln2_low)
    r_high = Sub(clipped, n_high)
    r = Sub(r_high, n_low)
    p0_c = Constant<value = float {{{_text([floats.EXP_POLY[0]])}}}>()
    zeros = Sub(r, r)
    p0 = Add(zeros, p0_c){horner}
    r_r = Mul(r, r)
    tail = Mul(p{len(floats.EXP_POLY) - 1}, r_r)
    tail_r = Add(tail, r)
    mantissa = Add(tail_r, unity)
    n_i = Cast<to = 7>(n_f)
    index = Add(n_i, offset)
    power = Gather<axis = 0>(powers, index)
    grown = Mul(mantissa, power)
    too_low = Less(x, lowest)
    nothing = Constant<value = float {{0.0}}>()
    e = Where(too_low, nothing, grown)
    e_127 = Mul(quant_max, e)
    E = Round(e_127)
    total = ReduceSum<keepdims = 1>(E, last)
    E_w = Cast<to = {wide}>(E)
    v_w = Cast<to = {wide}>(v)
    mixed_w = MatMul(E_w, v_w)
    mixed = Cast<to = 1>(mixed_w)
    valued = Mul(mixed, s_v)
    share = Div(unity, total)
    heads_y = Mul(valued, share)
    tokens_y = Transpose<perm = [1, 0, 2]>(heads_y)
    y_shape = Concat<axis = 0>(t, thirds)
    Y = Reshape(tokens_y, y_shape)
    shares = Mul(E, share)
    cls = Slice(shares, zero_1, one, one)
    cls_2 = Squeeze(cls, one)
    head_axis = Constant<value = int64 {{0}}>()
    running = CumSum(cls_2, head_axis)
    sum_1 = Gather<axis = 0>(running, last)
    A = Squeeze(sum_1, zero_1)
}}"""
    )


def keep_tokens() -> onnx.FunctionProto:
    """KeepTokens."""
    return _function(
        """
KeepTokens (X, A, tokens) => (Y) {
    one = Constant<value = int64[1] {1}>()
    zero = Constant<value = int64[1] {0}>()
    all_tokens = Shape(A)
    total = Sub(all_tokens, one)
    patches = Slice(A, one, all_tokens, zero)
"""
        + _KEPT.format(fraction="tokens", total="total")
        + """
    best, where = TopK<axis = -1, largest = 1, sorted = 1>(patches, n)
    rising, order = TopK<axis = -1, largest = 0, sorted = 1>(where, n)
    places = Add(rising, one)
    index = Concat<axis = 0>(zero, places)
    Y = Gather<axis = 0>(X, index)
}"""
    )


def bodies(tokens: int) -> list[onnx.FunctionProto]:
    """Every body, for a graph of at most ``tokens`` tokens."""
    return [
        patch_embed(),
        top_k_gate(),
        ternary_mat_mul(),
        quant_attention(tokens),
        keep_tokens(),
    ]
