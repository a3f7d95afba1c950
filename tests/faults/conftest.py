"""Work that dies or fails in a forked child runs with torch set plainly: a child of a process whose
torch has threads waits for them for ever."""

from support.plain_torch import plain_torch

__all__ = ["plain_torch"]
