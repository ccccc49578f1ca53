"""The kernel that needs nothing but NumPy: all walks of a block take one step at a time."""

from typing import Any, Final

import numpy as np

from serve_app.model.kernels import KernelName
from serve_app.model.packed import (
    HIGHEST_KEY,
    LOWEST_KEY,
    META_BITS,
    Flaw,
    Float64s,
    Int32s,
    Int64s,
    PackedForest,
    keys_of,
)

WALKS_PER_BLOCK: Final = 1 << 16  # more leave the second-level cache, fewer pay for calls
STEPS_PER_SWEEP: Final = 4  # steps between two looks for walks that have arrived


class NumpyKernel:
    """Means over the trees by vectorised NumPy."""

    name: KernelName = "numpy"

    def __init__(self, forest: PackedForest) -> None:
        meta = (forest.words >> 32) & ((1 << META_BITS) - 1)
        base_of = np.repeat(forest.bases, np.diff(forest.bases, append=len(forest.words)))
        self._forest = forest
        self._slot = meta & ((1 << forest.slot_bits) - 1)
        self._child = base_of + (meta >> forest.slot_bits)
        self._low = forest.words.astype(np.int32)  # keeps the lower half
        self._is_leaf = forest.words < 0

    def mean(self, X: Any, out: Float64s) -> int:
        """Write the mean of the leaves of each row of ``X`` into ``out``; report a flaw found."""
        rows_per_block = max(1, WALKS_PER_BLOCK // self._forest.n_trees)
        for first in range(0, len(X), rows_per_block):
            flaw, keys = self._keys(X[first : first + rows_per_block])
            if flaw is not Flaw.NONE:
                return flaw
            leaves = self._low[self._walk(keys)].reshape(len(keys), -1)
            # accumulate adds strictly from the first tree to the last, unlike sum
            running = np.add.accumulate(self._forest.values[leaves], axis=1)
            np.divide(running[:, -1], self._forest.n_trees, out=out[first : first + rows_per_block])
        return Flaw.NONE

    def _keys(self, X: Any) -> tuple[Flaw, Int32s]:
        with np.errstate(over="ignore"):
            x = X.astype(np.float32)
        keys = np.empty((len(x), 2 * self._forest.n_features + 1), dtype=np.int32)
        keys[:, :-1:2] = keys_of(x)
        keys[:, 1::2] = keys[:, :-1:2]
        keys[:, -1] = LOWEST_KEY
        if not np.isfinite(x).all():
            missing = np.isnan(x)
            if np.isinf(x).any():
                return Flaw.INFINITE, keys
            if not self._forest.allow_nan:
                return Flaw.MISSING, keys
            keys[:, :-1:2][missing] = LOWEST_KEY
            keys[:, 1::2][missing] = HIGHEST_KEY
        return Flaw.NONE, keys

    def _walk(self, keys: Int32s) -> Int64s:
        """Find the leaf of every row in every tree, row-major."""
        flat_keys = keys.ravel()
        node = np.tile(self._forest.bases, len(keys))
        row = np.repeat(np.arange(len(keys)) * keys.shape[1], self._forest.n_trees)
        arrived = np.empty_like(node)
        walk = np.arange(len(node))
        while len(walk):
            for _ in range(STEPS_PER_SWEEP):
                right = flat_keys[row + self._slot[node]] > self._low[node]
                node = self._child[node] + right
            at_leaf = self._is_leaf[node]
            arrived[walk[at_leaf]] = node[at_leaf]
            on = ~at_leaf
            walk, node, row = walk[on], node[on], row[on]
        return arrived
