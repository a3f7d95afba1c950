"""Jetson GPUs: TensorRT engines between launches of our own kernels.

Nothing here is imported before it is asked for; ``tensorrt`` only inside functions.
"""
