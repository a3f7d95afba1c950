"""Every kernel of every microcontroller gives the reference's bits, under emulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support import path_drive
from support.emulator import Bench, EmulatedBoard, Workshop, build_kernels
from support.structure_reference import structure_of
from tatvpr_edge.compilers.packing import Layout
from tatvpr_edge.spec import reference
from tatvpr_edge.spec.limits import kept
from tatvpr_edge.spec.packing import pack_ternary

F32 = NDArray[np.float32]
#: (K, N, tokens): the model's shapes, odd ones, sums that need widening, one token, three blocks,
#: the least K whose unpacked rows are padded beyond what K itself takes, with two tokens left over
SHAPES = ((192, 192, 19), (192, 96, 8), (768, 64, 11), (20, 30, 13), (300, 50, 9), (64, 13, 2),
          (96, 25, 1), (33, 7, 5), (250, 14, 3), (1409, 33, 10))  # fmt: skip


@pytest.fixture
def bench(workshop: Workshop, board: EmulatedBoard) -> Bench:
    return build_kernels(workshop, board)


def layouts_of(board: EmulatedBoard) -> tuple[Layout, ...]:
    base = board.variant.layout
    return (base, Layout.MCU_COLS) if board.name.startswith("mps2") else (base,)


def assert_same_bits(got: bytes, want: F32, what: object) -> None:
    read = np.frombuffer(got, np.float32).reshape(want.shape)
    np.testing.assert_array_equal(read.view(np.uint32), want.view(np.uint32), err_msg=str(what))


@pytest.mark.slow
def test_matmuls_dense_and_sparse_in_every_layout(bench: Bench, run_folder: Path) -> None:
    rng = np.random.default_rng(3)
    wanted = []
    for index, (k_in, n_out, tokens) in enumerate(SHAPES):
        weights = rng.integers(-1, 2, (n_out, k_in)).astype(np.int8)
        x = rng.standard_normal((tokens, k_in)).astype(np.float32)
        x[0] = 127.0 * np.sign(x[0])  # every |q| at its largest: the widest sums
        weights[0] = np.where(x[0] > 0, 1, -1)
        weights[1] = -weights[0]
        x[1:][-1:] = 0.0  # an empty list
        scale = rng.random(n_out if index % 2 else 1).astype(np.float32)
        bias = rng.standard_normal(n_out).astype(np.float32)
        residual = rng.standard_normal((tokens, n_out)).astype(np.float32) if index % 3 else None
        for k in (1.0, 0.45, 0.1):
            q, s = reference.top_k_gate(x, k)
            y = reference.ternary_mat_mul(q, s, pack_ternary(weights), scale, bias)
            y = y if residual is None else residual + y
            for layout in layouts_of(bench.board):
                for sparse in (False, True)[: 2 if k < 0.5 else 1]:
                    bench.matmul(weights, q, s, scale, bias, residual, sparse, layout)
                    wanted.append((y, (k_in, n_out, tokens, k, layout.name, sparse)))
    answers, _, _ = bench.run(run_folder)
    for answer, (y, what) in zip(answers, wanted, strict=True):
        assert_same_bits(answer[0], y, what)


def gate_rows(rng: np.random.Generator, k_in: int) -> F32:
    """Rows with ties, zeros, one huge value, and ordinary ones."""
    x = rng.standard_normal((6, k_in)).astype(np.float32)
    x[0] = 0.0
    x[1] = np.round(x[1] * 2)
    x[2, k_in // 2] = 1e6
    x[3] = 1.0
    return x


def test_the_gate_keeps_what_the_reference_keeps(bench: Bench, run_folder: Path) -> None:
    rng = np.random.default_rng(4)
    wanted = []
    for k_in, group in ((192, 1), (768, 1), (192, 4), (768, 16), (20, 1), (21, 3), (64, 64)):
        x = gate_rows(rng, k_in)
        q, _ = reference.quantise(x)
        for k in (0.5, 0.3, 0.01):
            keep = kept(k, k_in // group)
            for listed in (0, 1):
                arguments = [k_in, len(x), keep, group, listed]
                bench.add(2, arguments, [q], answers=5)  # OP_SELECT
                wanted.append((reference.top_k_gate(x, k, group)[0], listed, arguments))
    answers, _, _ = bench.run(run_folder)
    for (rows, _, counts, index, value), (want, listed, what) in zip(answers, wanted, strict=True):
        got = np.frombuffer(rows, np.int8).reshape(len(want), -1)
        np.testing.assert_array_equal(got[:, : want.shape[1]], want, err_msg=str(what))
        assert not got[:, want.shape[1] :].any(), what
        if listed:
            indices = np.frombuffer(index, np.uint16).reshape(len(want), -1)
            values = np.frombuffer(value, np.int8).reshape(len(want), -1)
            for t, n in enumerate(np.frombuffer(counts, np.int32)):
                entries = indices[t, :n].astype(np.int64)
                assert (np.diff(entries) > 0).all(), what
                np.testing.assert_array_equal(values[t, :n], want[t, entries], err_msg=str(what))
                assert np.count_nonzero(want[t]) == np.count_nonzero(values[t, :n]), what
                assert not values[t, n : (n + 3) // 4 * 4].any(), what


def test_rows_quantise_norm_and_gelu(bench: Bench, run_folder: Path) -> None:
    rng = np.random.default_rng(5)
    wanted: list[list[NDArray[np.generic]]] = []
    for width in (192, 768, 40, 17):
        x = (rng.standard_normal((5, width)) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
        x[1] = 0.0
        q, s = reference.quantise(x)
        bench.add(3, [width, 5], [x], answers=2)  # OP_QUANTISE
        wanted.append([q, s])
        gamma, beta = rng.standard_normal((2, width)).astype(np.float32)
        bench.add(4, [width, 5], [x, gamma, beta])  # OP_LAYER_NORM
        wanted.append([reference.layer_norm(x, gamma, beta)])
    x = np.concatenate([np.linspace(-9, 9, 700), [0.0, -0.0, 1e4, -1e4]]).astype(np.float32)
    bench.add(5, [x.size], [x])  # OP_GELU
    wanted.append([reference.gelu(x)])
    answers, _, _ = bench.run(run_folder)
    for answer, want in zip(answers, wanted, strict=True):
        if want[0].dtype == np.int8:
            rows = np.frombuffer(answer[0], np.int8).reshape(want[0].shape[0], -1)
            np.testing.assert_array_equal(rows[:, : want[0].shape[1]], want[0])
        else:
            assert_same_bits(answer[0], want[0].astype(np.float32), want[0].shape)
        if len(want) == 2:
            assert_same_bits(answer[1], want[1].astype(np.float32), "scale")


def test_attention_and_patches_and_map_search(bench: Bench, run_folder: Path) -> None:
    rng = np.random.default_rng(6)
    shapes = ((17, 48, 3), (9, 64, 1), (1, 24, 2), (12, 20, 2), (11, 15, 3))  # of odd width, too
    for tokens, dim, heads in shapes:
        bench.add(7, [tokens, dim, heads], [attention_input(rng, tokens, dim)], answers=2)
    rng = np.random.default_rng(6)
    patches = []
    qkvs = [attention_input(rng, tokens, dim) for tokens, dim, _ in shapes]
    for size, patch, dim in ((32, 16, 12), (20, 10, 6), (24, 8, 7), (24, 8, 6)):
        pixels = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
        weights = rng.integers(-127, 128, (dim, patch * patch * 3)).astype(np.int8)
        scale, bias = rng.random((2, dim)).astype(np.float32)
        bench.add(6, [size, patch, dim], [pixels, weights, scale, bias])
        patches.append(reference.patch_embed(pixels, weights, scale, bias))
    query = rng.integers(-127, 128, 100).astype(np.int8)
    rows = rng.integers(-127, 128, (7, 100)).astype(np.int8)
    bench.add(8, [100, 7], [query, rows])
    bench.add(9, [100, 7], [query, rows])
    numbers = rng.integers(-127, 128, 8 * 65).astype(np.int8)  # OP_DOT_BITS, an odd row of bytes
    bits = rng.integers(0, 2, (5, 8 * 65)).astype(np.uint8)
    bits[0] = numbers > 0  # every number that counts at its largest
    bench.add(13, [65, 5], [numbers, np.packbits(bits, axis=1, bitorder="little")])
    answers, _, _ = bench.run(run_folder)
    set_sums = np.frombuffer(answers.pop()[0], np.int32)
    np.testing.assert_array_equal(set_sums, bits.astype(np.int32) @ numbers)
    for (tokens, dim, heads), qkv, answer in zip(shapes, qkvs, answers, strict=False):
        y, a = reference.quant_attention(qkv, heads)
        assert_same_bits(answer[0], y, (tokens, dim, heads))
        looked = np.frombuffer(answer[1], np.float32).reshape(heads, tokens)
        total = np.zeros(tokens, np.float32)
        for part in looked:
            total = total + part
        assert_same_bits(total.tobytes(), a, "what CLS looks at")
    for want, answer in zip(patches, answers[len(shapes) :], strict=False):
        assert_same_bits(answer[0], want, want.shape)
    dots = np.frombuffer(answers[-2][0], np.int32)
    np.testing.assert_array_equal(dots, rows.astype(np.int32) @ query)
    apart = np.unpackbits((rows ^ query).view(np.uint8), axis=1).sum(axis=1)
    np.testing.assert_array_equal(np.frombuffer(answers[-1][0], np.int32), apart)


def attention_input(rng: np.random.Generator, tokens: int, dim: int) -> F32:
    return rng.standard_normal((tokens, 3 * dim)).astype(np.float32)


def test_paths_and_what_a_frame_shows_are_a_host_s(bench: Bench, run_folder: Path) -> None:
    judged = np.array([path_drive.ELSEWHERE_M, path_drive.THRESHOLD, *path_drive.WEIGHTS], "<f4")
    arguments = [path_drive.PLACES, path_drive.FRAMES, path_drive.STEPS, 1]
    bench.add(11, arguments, [*path_drive.drive(), judged], answers=2)  # OP_TRACK
    rng = np.random.default_rng(7)
    frames = [rng.integers(0, 256, (60, 80)).astype(np.uint8), np.full((60, 80), 90, np.uint8)]
    for luma in frames:
        bench.add(12, [3, 80, 60, 80], [luma], answers=2)  # OP_STRUCTURE, GRAY8
    (status, told), *shown = bench.run(run_folder)[0]
    assert status == bytes(4)
    assert path_drive.sum_of(told) == path_drive.CRC
    for (status, levels), luma in zip(shown, frames, strict=True):
        assert status == bytes(4)
        found = np.frombuffer(levels, np.float32)[0]
        assert found == pytest.approx(structure_of(luma), rel=1e-5, abs=1e-6)
