"""Choose how a packed forest is walked."""

import importlib.util
from typing import Any, Literal, Protocol

from serve_app.model.packed import Float64s, PackedForest

KernelName = Literal["numba", "numpy"]


class Kernel(Protocol):
    """Averages the leaves of each row over the trees."""

    name: KernelName

    def mean(self, X: Any, out: Float64s) -> int:
        """Fill ``out`` (rows x width) from C-contiguous float32 or float64 rows; return a Flaw."""


def fastest_kernel() -> KernelName:
    """Name the fastest kernel that is installed."""
    return "numba" if importlib.util.find_spec("numba") else "numpy"


def make_kernel(name: KernelName, forest: PackedForest) -> Kernel:
    """Prepare a kernel; numba is imported only here."""
    if name == "numba":
        from serve_app.model.kernel_numba import NumbaKernel

        return NumbaKernel(forest)
    from serve_app.model.kernel_numpy import NumpyKernel

    return NumpyKernel(forest)
