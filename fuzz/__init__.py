"""Fuzzing: every reader of bytes that others wrote, C and Python. ``python -m fuzz.run``."""
