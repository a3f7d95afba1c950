"""Model tests run with torch set plainly."""

from support.plain_torch import plain_torch

__all__ = ["plain_torch"]
