"""A stand-in for pycuda, which wants CUDA's headers to be built (see ``driver``)."""
