"""A frame through the GPU: our launches and TensorRT's engines on one stream.

``pixels`` -> PatchEmbed -> engine "front" -> KeepTokens -> engine "back" -> descriptor, or one
engine "whole" where the model keeps all its tokens; where KeepTokens stands twice, an engine
"middle" lies between the two. The number of kept tokens is computed on the host. From the second
frame of one size on, the work is one CUDA graph: k is read from device memory, so that any k
replays the same graph; another number of tokens records a new one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.backends.tensorrt.engine import Engine
from tatvpr_edge.runtime.backends.tensorrt.kernels import Kernels
from tatvpr_edge.runtime.backends.tensorrt.recipe import Recipe
from tatvpr_edge.runtime.cuda.driver import Driver, Graph
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.limits import kept

_K = "k"


class Pipeline:
    """All buffers and engines of one model; not for several threads at once.

    The context of ``driver`` is current for whatever is called.

    Args:
        engines: end with :meth:`close`, and where this fails.
        constants: bytes of the recipe's ``patch_embed.path``.
        descriptor_size: floats in the last stage's output.
        graphs: record CUDA graphs.
        table: bytes of the recipe's ``table``, where it has one.

    Raises:
        ToolError: an engine lacks a tensor, or the GPU has no memory.
    """

    def __init__(
        self,
        driver: Driver,
        kernels: Kernels,
        recipe: Recipe,
        engines: Mapping[str, Engine],
        constants: bytes,
        descriptor_size: int,
        graphs: bool = True,
        table: bytes | None = None,
    ) -> None:
        self._driver, self._kernels, self._recipe = driver, kernels, recipe
        self._engines = engines
        self._graph: Graph | None = None
        self._recorded_rows: list[int] = []  # that the graph, or the next one, is for
        self._may_record = graphs and driver.can_record
        self._allocated: list[int] = []
        #: The table, and what each KeepTokens leaves of it.
        self._tables: list[int] = []
        try:
            self._allocate(constants, descriptor_size, table)
            self._bind()
        except BaseException:
            self.close()
            raise

    def _allocate(self, constants: bytes, descriptor_size: int, table: bytes | None) -> None:
        recipe, embed = self._recipe, self._recipe.patch_embed
        self._pixels = self._buffer(embed.side * embed.side * 3)
        self._k = self._buffer(4)
        self._patches = self._buffer(4 * embed.count * embed.dim)
        self._descriptor = self._buffer(4 * descriptor_size)
        self._result = np.empty(descriptor_size, np.float32)
        stored = np.frombuffer(constants, np.uint8)
        weights = embed.dim * embed.row_bytes
        if stored.size != weights + 8 * embed.dim:
            raise ToolError("the patch embedding's constants do not have their size")
        parts = (stored[:weights], stored[weights : -4 * embed.dim], stored[-4 * embed.dim :])
        self._weights, self._scale, self._bias = (self._constant(part) for part in parts)
        if len(recipe.stages) > 1:
            tokens = recipe.max_tokens
            self._tokens = self._buffer(4 * tokens * embed.dim)
            self._looked = self._buffer(4 * tokens)
            self._source = self._buffer(4 * tokens)
            self._kept = self._buffer(4 * tokens * embed.dim)
        if table is not None and len(recipe.stages) > 1:
            if len(table) != 4 * recipe.max_tokens:
                raise ToolError("the table of the tokens does not have its size")
            self._tables.append(self._constant(np.frombuffer(table, np.uint8)))
            self._tables += [self._buffer(len(table)) for _ in recipe.stages[1:]]

    def _buffer(self, size_bytes: int) -> int:
        self._allocated.append(self._driver.allocate(size_bytes))
        return self._allocated[-1]

    def _constant(self, values: NDArray[np.uint8]) -> int:
        pointer = self._buffer(values.size)
        self._driver.upload(pointer, values)
        self._driver.synchronise()
        return pointer

    def _bind(self) -> None:
        stages = self._recipe.stages
        for number, stage in enumerate(stages):
            last = stage is stages[-1]
            outputs = [self._descriptor] if last else [self._tokens, self._looked]
            for name in stage.inputs:
                if name == _K:
                    address = self._k
                elif name == stage.table:
                    address = self._tables[number]
                else:
                    address = self._kept if name == stage.rows else self._patches
                self._engines[stage.name].bind(name, address)
            for name, address in zip(stage.outputs, outputs, strict=True):
                self._engines[stage.name].bind(name, address)

    def run(self, pixels: NDArray[np.uint8], k: float, tokens: float) -> NDArray[np.float32]:
        """Descriptor float32 [D] of pixels uint8 [side, side, 3].

        Raises:
            ToolError: the GPU or TensorRT refused.
        """
        # Both arrays stay alive until the stream has read them.
        pixels, fraction = np.ascontiguousarray(pixels), np.array([k], np.float32)
        self._driver.upload(self._pixels, pixels)
        self._driver.upload(self._k, fraction)
        rows = self._rows(tokens)
        if rows != self._recorded_rows:
            self._drop_graph()
            self._recorded_rows = []  # none until this is whole, whatever Ctrl-C cuts
            for stage, count in zip(self._recipe.stages[1:], rows[1:], strict=True):
                self._engines[stage.name].set_rows(count)
            self._enqueue(rows)  # TensorRT settles a new shape outside of any recording
            self._recorded_rows = rows
        elif self._graph is not None:
            self._graph.launch()
        elif not (self._may_record and self._record(rows)):
            self._enqueue(rows)
        self._driver.download(self._result, self._descriptor)
        self._driver.synchronise()
        return self._result.copy()

    def _rows(self, tokens: float) -> list[int]:
        """Tokens that each stage sees, CLS included."""
        rows = [self._recipe.max_tokens]
        for _ in self._recipe.stages[1:]:
            rows.append(1 + kept(tokens, rows[-1] - 1))
        return rows

    def _enqueue(self, rows: list[int]) -> None:
        embed, stream = self._recipe.patch_embed, self._driver.stream
        self._kernels.patch_embed(
            (self._pixels, self._weights, self._scale, self._bias, self._patches),
            side=embed.side,
            patch=embed.patch,
            dim=embed.dim,
        )
        for number, stage in enumerate(self._recipe.stages, start=1):
            self._engines[stage.name].enqueue(stream)
            if number < len(rows):
                counts = {"tokens": rows[number - 1], "kept": rows[number] - 1}
                self._kernels.keep_tokens(
                    *(self._tokens, self._looked, self._source, self._kept),
                    **counts,
                    dim=embed.dim,
                )
                if self._tables:  # its rows leave with the tokens
                    before, left = self._tables[number - 1 : number + 1]
                    self._kernels.keep_tokens(
                        *(before, self._looked, self._source, left), **counts, dim=1
                    )

    def _record(self, rows: list[int]) -> bool:
        """Record the work and run it once; False, for good, where the GPU cannot record it."""
        try:
            self._driver.begin_capture()
            try:
                self._enqueue(rows)
            except BaseException:  # Ctrl-C, too: a stream that is recorded runs nothing
                with contextlib.suppress(ToolError):
                    self._driver.end_capture().close()
                raise
            self._graph = self._driver.end_capture()
        except ToolError:
            self._may_record = False
            return False
        self._graph.launch()
        return True

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
        self._graph = None

    @property
    def recorded(self) -> bool:
        """Whether the last size runs as a CUDA graph."""
        return self._graph is not None

    def close(self) -> None:
        """End the engines, give the device memory back."""
        try:
            self._drop_graph()
        finally:
            self._engines = {}
        while self._allocated:
            self._driver.free(self._allocated.pop())
