"""Structures of C for ctypes, written as C declares them: a type, and the names that have it."""

from __future__ import annotations

import ctypes
from typing import Any

INT32, UINT32, UINT64, SIZE = ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t
FLOAT, DOUBLE = ctypes.c_float, ctypes.c_double
POINTER = ctypes.c_void_p


def c_fields(*declared: tuple[Any, str]) -> list[tuple[str, Any]]:
    """The ``_fields_`` of a structure: ``c_fields((UINT32, "size band"), (FLOAT * 3, "near"))``."""
    return [(name, kind) for kind, names in declared for name in names.split()]
