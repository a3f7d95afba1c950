"""Lowering with TVM, imported without PyTorch.

TVM imports PyTorch wherever it is installed, to take its tensors, which nobody hands it here: two
seconds of every build, and 600 MB of address space, 3 GB of the build for CUDA.
"""

import sys

if "torch" not in sys.modules:
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way to say: not installed
    try:
        import tvm  # noqa: F401
    except ImportError:
        pass  # who needs it says what to install
    finally:
        del sys.modules["torch"]
