"""One process or many: torchrun starts them, this module divides the batch between them.

Every process draws the same batch and the same random numbers and computes its own slice of the
images; descriptors are gathered, so that losses see the whole batch. Many processes therefore
compute the loss that one would.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def rank() -> int:
    """This process's number among its peers; the one with 0 writes files and says what was made."""
    return int(os.environ.get("RANK", "0"))


def own_device(device: str) -> str:
    """Where this process computes: "cuda" is the GPU of its number among those of its machine."""
    number = os.environ.get("LOCAL_RANK")
    return f"cuda:{number}" if device == "cuda" and number else device


class Crew:
    """This process among its peers; alone unless torchrun started several.

    Attributes:
        device: where this process computes.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = rank()
        self.device = own_device(device)
        self._started = False
        if self.size > 1 and not dist.is_initialized():
            # Its functions take the group of the moment for a default, and optimisers load it: a
            # group that is there by then is held for ever, and its threads may abort the program
            # when it ends.
            importlib.import_module("torch.distributed.nn.functional")
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
            self._started = True

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's share of ``count`` images; all shares are of equal size.

        Raises:
            ValueError: ``count`` is not a multiple of the number of processes.
        """
        if count % self.size:
            raise ValueError(f"a batch of {count} cannot be divided by {self.size} processes")
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, mine: Tensor) -> Tensor:
        """Everybody's rows, in order, with a gradient for mine."""
        if self.size == 1:
            return mine
        gathered: Tensor = _Gather.apply(mine, self.rank, self.size)
        return gathered

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """The mean of every gradient over all processes."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        # As one message: a network has a hundred small gradients.
        message = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(message)
        message /= self.size
        for grad, mean in zip(grads, message.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))

    def mean(self, value: float) -> float:
        """The mean of a number over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor(
            value, dtype=torch.float64, device=self.device
        )  # NCCL knows GPUs alone
        dist.all_reduce(total)
        return float(total) / self.size

    def leave(self) -> None:
        """Part from the others."""
        if self._started:
            dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, rank: int, size: int) -> Tensor:
        ctx.part = slice(rank * len(mine), (rank + 1) * len(mine))
        ctx.size = size
        parts = [torch.empty_like(mine) for _ in range(size)]
        dist.all_gather(parts, mine.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Every process computes the same loss of the same rows, so its gradient needs no exchange;
        # the factor undoes the mean that average_gradients takes.
        return grads[0][ctx.part] * ctx.size, None, None
