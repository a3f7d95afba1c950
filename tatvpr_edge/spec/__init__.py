"""The project's rules in one place: operators, numerics, packing, file formats (NumPy only)."""
