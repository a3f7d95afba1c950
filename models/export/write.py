"""Backbone and heads written into a :class:`Graph`, and the ONNX file around it.

Called by ``tatvpr-edge export`` and by whoever ships a model.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

import tatvpr_edge
from tatvpr_edge.models import registry
from tatvpr_edge.models.export import bodies
from tatvpr_edge.models.export.graph import DESCRIPTOR, Graph, array, scalar_input
from tatvpr_edge.models.heads import HEADS, Head
from tatvpr_edge.models.nn.layers import Block
from tatvpr_edge.models.nn.vit import PlaceModel, ViT
from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.operators import DOMAIN, OPSET, VERSION
from tatvpr_edge.spec.targets import check_apart

#: ONNX file format; read by every tool that knows opset 20.
IR_VERSION = 10


def export_onnx(
    model: PlaceModel | str,
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
    tokens_out: bool = False,
) -> Path:
    """Write one self-contained ONNX file: one frame in, one descriptor out.

    Run-time inputs: ``frame uint8 [H, W, 3]``, already the model's square; ``k float32 []``;
    ``tokens float32 []``. Output: ``descriptor float32 [D]``.

    Args:
        model: a model, or a registered name.
        weights: checkpoint (safetensors) for a registered name; without it the weights are random
            ones from ``seed``, which is good for benchmarks and for nothing else.
        tokens_out: also output the last block's tokens after the final norm, ``tokens_out``.

    Raises:
        ModelError: unknown name, unusable weights, or a float twin (it has no such operators).
        UsageError: ``path`` is the file of the weights.
    """
    if isinstance(model, str):
        if weights is None:
            model = registry.create(model, seed=seed)
        else:
            from tatvpr_edge.models.checkpoint import load_weights

            check_apart(Path(path), (weights,))
            model = load_weights(weights, expected=registry.config(model))
    proto = build_proto(model, tokens_out=tokens_out)
    onnx.checker.check_model(proto, full_check=True)
    target = Path(path)
    with replacing(target) as sink:
        sink.write(proto.SerializeToString())
    return target


def build_proto(model: PlaceModel, *, tokens_out: bool = False) -> onnx.ModelProto:
    """The ONNX model in memory; see :func:`export_onnx`.

    Raises:
        ModelError: a float twin, or non-finite weights.
    """
    config = model.config
    if not config.backbone.ternary:
        raise ModelError(f"{config.name} is a float twin: only ternary models are exported")
    for name, values in model.state_dict().items():
        if not bool(values.isfinite().all()):
            raise ModelError(f"{config.name}: {name} is not finite: the training went wrong")

    graph = Graph()
    head = cast(Any, model.head)
    table = head.table() if hasattr(head, "table") else None
    tokens, beside = write_backbone(graph, model.backbone, table)
    side, dim = config.backbone.image_px, config.backbone.dim
    outputs = [
        helper.make_tensor_value_info(DESCRIPTOR, TensorProto.FLOAT, [model.descriptor_size])
    ]
    if tokens_out:
        outputs.append(helper.make_tensor_value_info("tokens_out", TensorProto.FLOAT, [None, dim]))
    if beside is None:
        cast(Head, head).write(graph, tokens)
    else:
        head.write(graph, tokens, beside)
    proto = helper.make_model(
        graph.proto(
            config.name,
            [
                helper.make_tensor_value_info("frame", TensorProto.UINT8, [side, side, 3]),
                scalar_input("k"),
                scalar_input("tokens"),
            ],
            outputs,
        ),
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        functions=bodies.bodies(config.backbone.tokens),
        producer_name="tatvpr-edge",
        producer_version=tatvpr_edge.__version__,
    )
    helper.set_model_props(
        proto,
        {
            "tatvpr.model": config.name,
            "tatvpr.head": _head_name(model),
            "tatvpr.version": str(VERSION),
            "tatvpr.weights": "trained" if model.trained else "random",
            "tatvpr.groups": json.dumps(dataclasses.asdict(config.backbone.groups)),
            "tatvpr.scope": config.backbone.scope,
            "tatvpr.config": json.dumps(config.to_dict(), sort_keys=True),
        },
    )
    return proto


def _head_name(model: PlaceModel) -> str:
    """The registered kind, or the class of a head of the user's own."""
    kind, own = model.config.head.kind, type(model.head)
    return kind if own is HEADS[kind] else own.__name__.lower()


def write_backbone(
    graph: Graph, vit: ViT, table: NDArray[np.float32] | None = None
) -> tuple[str, str | None]:
    """The backbone; returns the name of its tokens ``[T, D]`` after the last norm.

    Args:
        table: float32 ``[tokens, n]``, a row for each token, CLS included; its rows leave with
            their tokens, and the second name is that of what is left of it.
    """
    config = vit.config
    beside = None if table is None else graph.weight("tokens.table", table)
    w, scale, bias = vit.patch_embed.quantised()
    patches = graph.custom(
        "PatchEmbed",
        [
            "frame",
            graph.weight("patch_embed.weight", array(w).astype(np.int8)),
            graph.weight("patch_embed.scale", scale),
            graph.weight("patch_embed.bias", bias),
        ],
        "patch_embed",
    )
    cls = graph.weight("cls_token", vit.cls_token)
    x = graph.add("Concat", [cls, patches], "embed.concat", axis=0)
    x = graph.add("Add", [x, graph.weight("pos_embed", vit.pos_embed)], "embed")
    for number, module in enumerate(vit.blocks):
        block = cast(Block, module)
        x, looked = _write_block(graph, block, x, f"blocks.{number}")
        if number + 1 in config.keep_after:
            keep = f"blocks.{number}.keep"
            x = graph.custom("KeepTokens", [x, looked, "tokens"], keep)
            if beside is not None:
                beside = graph.custom("KeepTokens", [beside, looked, "tokens"], f"{keep}.table")
    return graph.norm(x, "tokens_out", vit.norm), beside


def _write_block(graph: Graph, block: Block, x: str, name: str) -> tuple[str, str]:
    """One block; the second name is that of A, which only blocks before a KeepTokens use."""
    normed = graph.norm(x, f"{name}.norm1", block.norm1)
    qkv = graph.ternary(normed, f"{name}.qkv", block.attn.qkv)
    attention, looked = f"{name}.attn", f"{name}.attn.looked"
    graph.custom(
        "QuantAttention",
        [qkv],
        attention,
        outputs=[attention, looked],
        heads=block.attn.heads,
    )
    out = graph.ternary(attention, f"{name}.out", block.attn.out)
    x = graph.add("Add", [x, out], f"{name}.residual1")
    hidden = graph.norm(x, f"{name}.norm2", block.norm2)
    hidden = graph.ternary(hidden, f"{name}.up", block.mlp.up)
    hidden = graph.add("Gelu", [hidden], f"{name}.gelu", approximate="none")
    if block.mlp.norm is not None:
        hidden = graph.norm(hidden, f"{name}.mlp_norm", block.mlp.norm)
    down = graph.ternary(hidden, f"{name}.down", block.mlp.down)
    return graph.add("Add", [x, down], f"{name}.residual2"), looked
