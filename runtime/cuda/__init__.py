"""The CUDA driver, where there is one: through pycuda where that is installed, else cuda-bindings.

Nothing here is imported before a GPU is asked for, and both packages inside functions alone.
"""
