"""Batches of places that look alike: the hard negatives of stage 2.

Places drawn at random are told apart easily and teach little. Every few steps the model describes
frames of each source; a frame's rivals are those of other places whose descriptors are nearest. A
batch then holds small cliques: a place and some of its rivals (Arandjelovic et al., NetVLAD,
2016, section 4, mine with such a cache of descriptors).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tatvpr_edge.models.data.places import Indices, Places

#: Rivals remembered for a frame; a batch takes some of them at random.
REMEMBERED = 10
_NOT_MINED = -1
#: Frames described at a time, and pairs of them compared: all 66,000 places of GSV-Cities at once
#: take 30 GB, and 4,096 of 75,000 frames of clips beside all others 6 GB.
_ROWS, _CELLS = 4096, 1 << 25

#: Descriptors ``[n, D]`` of frames ``uint8 [n, H, W, 3]``.
Describe = Callable[[NDArray[np.uint8]], Tensor]


class Rivals(nn.Module):
    """The nearest frames of other places, for every source a buffer ``int64 [frames, 10]``.

    A module so that a checkpoint keeps it: a resumed run draws the same batches.
    """

    def __init__(self, sources: Sequence[Places]) -> None:
        super().__init__()
        for number, places in enumerate(sources):
            empty = torch.full((len(places), REMEMBERED), _NOT_MINED, dtype=torch.int64)
            self.register_buffer(f"source{number}", empty)

    def of(self, source: int) -> NDArray[np.int64]:
        """The table of one source, -1 where nothing is known."""
        return np.asarray(self.get_buffer(f"source{source}").cpu().numpy())

    def mine(
        self,
        source: int,
        places: Places,
        pixels: NDArray[np.uint8],
        describe: Describe,
        rng: np.random.Generator,
    ) -> None:
        """Look for the rivals of ``places.candidates``."""
        frames = places.candidates(rng)
        parts = [frames[start : start + _ROWS] for start in range(0, len(frames), _ROWS)]
        rows = [describe(pixels[part]).float() for part in parts]
        described = torch.cat(rows)
        table = torch.full((len(places), REMEMBERED), _NOT_MINED, dtype=torch.int64)
        step = max(1, min(_ROWS, _CELLS // len(frames)))
        for start in range(0, len(frames), step):
            part = frames[start : start + step]
            alike = described[start : start + step] @ described.T
            alike[torch.from_numpy(~places.apart(part, frames))] = -torch.inf
            best = alike.topk(min(REMEMBERED, len(frames)), dim=1)
            found = torch.from_numpy(frames)[best.indices.cpu()]
            found[torch.isinf(best.values.cpu())] = _NOT_MINED
            table[torch.from_numpy(part), : found.shape[1]] = found
        self.get_buffer(f"source{source}").copy_(table)


def draw_cliques(
    drawn: Sequence[Indices],
    table: NDArray[np.int64],
    count: int,
    rivals: int,
    rng: np.random.Generator,
) -> list[int]:
    """Numbers of ``count`` different places of ``drawn``: each random one is followed by up to
    ``rivals`` places that hold a rival of one of its frames.
    """
    holder = np.full(len(table), _NOT_MINED, np.int64)
    for number, members in enumerate(drawn):
        holder[members] = number
    chosen: list[int] = []
    taken: set[int] = set()
    for first in rng.permutation(len(drawn)):
        if len(chosen) >= count:
            break
        if int(first) in taken:
            continue
        clique = [int(first)]
        near = table[drawn[int(first)]].ravel()
        for place in holder[rng.permutation(near[near >= 0])]:
            if len(clique) > rivals or len(chosen) + len(clique) >= count:
                break
            if place >= 0 and int(place) not in taken and int(place) not in clique:
                clique.append(int(place))
        taken.update(clique)
        chosen += clique
    return chosen
