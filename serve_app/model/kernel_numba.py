"""The fast kernel: walks a packed forest with numba, eight walks at a time.

A walk waits for memory at every step, so eight independent ones run abreast: eight trees for few
rows, eight rows of one tree for many. Per row the leaves are added in the order of the trees, as
scikit-learn does; nothing here may reorder floating-point sums (no ``fastmath``).

All index arithmetic is unsigned: numba tests signed indices for being negative at every access.
"""

from typing import Any, Final

import numba
import numpy as np

from serve_app.model.kernel_cache import cached_jit
from serve_app.model.kernels import KernelName
from serve_app.model.packed import HIGHEST_KEY, LOWEST_KEY, Flaw, Float64s, PackedForest

LANES: Final = 8
# Each block streams the whole forest through the cache. On a busy machine 128 rows took a median of
# 5 to 12 µs a row, 512 took 6 to 8; alone both took 3.6.
ROWS_PER_BLOCK: Final = 512
FEW_ROWS: Final = 8  # from here on eight rows of one tree beat eight trees of one row

_FINE: Final = int(Flaw.NONE)
_INFINITE: Final = int(Flaw.INFINITE)
_MISSING: Final = int(Flaw.MISSING)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(0xFFFFFFFF)
_META: Final = np.uint64(0x7FFFFFFF)
_SIGN: Final = np.uint64(63)
_ONE: Final = np.uint64(1)


@numba.njit
def _next(words: Any, base: Any, keys: Any, row: Any, word: Any, slot_bits: Any) -> Any:
    """Go one step down; a leaf leads to itself. ``row`` is where the row's keys begin."""
    meta = (word >> _HALF) & _META
    slot = meta & ((_ONE << slot_bits) - _ONE)
    right = np.uint64(keys[row + slot] > np.int32(word))
    return words[base + (meta >> slot_bits) + right]


@numba.njit
def _add(values: Any, word: Any, out: Any, row: Any) -> None:
    leaf = word & _LOW_HALF
    for column in range(values.shape[1]):
        out[row, column] += values[leaf, column]


@numba.njit
def _fill_keys(X: Any, row: Any, x: Any, bits: Any, allow_nan: Any, keys: Any, begin: Any) -> Any:
    """Write the keys of one row from ``begin`` on; ``bits`` views the float32 scratch ``x``."""
    for feature in range(X.shape[1]):
        value = np.float32(X[row, feature])
        slot = begin + np.uint64(2 * feature)
        if np.isnan(value):
            if not allow_nan:
                return _MISSING
            keys[slot] = LOWEST_KEY
            keys[slot + _ONE] = HIGHEST_KEY
            continue
        if np.isinf(value):
            return _INFINITE
        x[0] = value + np.float32(0.0)  # both zeros get one key
        key = bits[0] ^ ((bits[0] >> np.int32(31)) & np.int32(HIGHEST_KEY))
        keys[slot] = key
        keys[slot + _ONE] = key
    keys[begin + np.uint64(2 * X.shape[1])] = LOWEST_KEY
    return _FINE


@numba.njit
def _walk_eight_trees(
    words: Any, bases: Any, tree: Any, values: Any, slot_bits: Any, keys: Any, out: Any, row: Any
) -> None:
    """Add the leaves of trees ``tree`` to ``tree + 7`` for one row."""
    zero = np.uint64(0)
    b0, b1, b2, b3 = bases[tree], bases[tree + 1], bases[tree + 2], bases[tree + 3]
    b4, b5, b6, b7 = bases[tree + 4], bases[tree + 5], bases[tree + 6], bases[tree + 7]
    w0, w1, w2, w3 = words[b0], words[b1], words[b2], words[b3]
    w4, w5, w6, w7 = words[b4], words[b5], words[b6], words[b7]
    while (w0 & w1 & w2 & w3 & w4 & w5 & w6 & w7) >> _SIGN == zero:
        w0 = _next(words, b0, keys, zero, w0, slot_bits)
        w1 = _next(words, b1, keys, zero, w1, slot_bits)
        w2 = _next(words, b2, keys, zero, w2, slot_bits)
        w3 = _next(words, b3, keys, zero, w3, slot_bits)
        w4 = _next(words, b4, keys, zero, w4, slot_bits)
        w5 = _next(words, b5, keys, zero, w5, slot_bits)
        w6 = _next(words, b6, keys, zero, w6, slot_bits)
        w7 = _next(words, b7, keys, zero, w7, slot_bits)
    _add(values, w0, out, row)
    _add(values, w1, out, row)
    _add(values, w2, out, row)
    _add(values, w3, out, row)
    _add(values, w4, out, row)
    _add(values, w5, out, row)
    _add(values, w6, out, row)
    _add(values, w7, out, row)


@numba.njit
def _walk_eight_rows(
    words: Any, base: Any, values: Any, slot_bits: Any, keys: Any, stride: Any, r: Any, out: Any
) -> None:
    """Add one tree's leaves for eight rows, whose keys begin at ``r * stride``."""
    k0 = r * stride
    k1 = k0 + stride
    k2 = k1 + stride
    k3 = k2 + stride
    k4 = k3 + stride
    k5 = k4 + stride
    k6 = k5 + stride
    k7 = k6 + stride
    w0 = w1 = w2 = w3 = w4 = w5 = w6 = w7 = words[base]
    while (w0 & w1 & w2 & w3 & w4 & w5 & w6 & w7) >> _SIGN == np.uint64(0):
        w0 = _next(words, base, keys, k0, w0, slot_bits)
        w1 = _next(words, base, keys, k1, w1, slot_bits)
        w2 = _next(words, base, keys, k2, w2, slot_bits)
        w3 = _next(words, base, keys, k3, w3, slot_bits)
        w4 = _next(words, base, keys, k4, w4, slot_bits)
        w5 = _next(words, base, keys, k5, w5, slot_bits)
        w6 = _next(words, base, keys, k6, w6, slot_bits)
        w7 = _next(words, base, keys, k7, w7, slot_bits)
    _add(values, w0, out, r)
    _add(values, w1, out, r + _ONE)
    _add(values, w2, out, r + np.uint64(2))
    _add(values, w3, out, r + np.uint64(3))
    _add(values, w4, out, r + np.uint64(4))
    _add(values, w5, out, r + np.uint64(5))
    _add(values, w6, out, r + np.uint64(6))
    _add(values, w7, out, r + np.uint64(7))


@numba.njit
def _walk_one(
    words: Any, base: Any, values: Any, slot_bits: Any, keys: Any, begin: Any, out: Any, row: Any
) -> None:
    word = words[base]
    while word >> _SIGN == np.uint64(0):
        word = _next(words, base, keys, begin, word, slot_bits)
    _add(values, word, out, row)


@cached_jit
def _few(
    X: Any, words: Any, bases: Any, values: Any, slot_bits: Any, allow_nan: Any, out: Any
) -> Any:
    """Row by row, eight trees abreast."""
    n_trees = len(bases)
    in_lanes = n_trees - n_trees % LANES
    keys = np.empty(2 * X.shape[1] + 1, np.int32)
    x = np.empty(1, np.float32)
    bits = x.view(np.int32)
    for row in range(X.shape[0]):
        flaw = _fill_keys(X, row, x, bits, allow_nan, keys, np.uint64(0))
        if flaw != _FINE:
            return flaw
        out[row, :] = 0.0
        for tree in range(0, in_lanes, LANES):
            _walk_eight_trees(words, bases, tree, values, slot_bits, keys, out, row)
        for tree in range(in_lanes, n_trees):
            _walk_one(words, bases[tree], values, slot_bits, keys, np.uint64(0), out, row)
        for column in range(out.shape[1]):
            out[row, column] /= n_trees
    return _FINE


@cached_jit
def _many(
    X: Any, words: Any, bases: Any, values: Any, slot_bits: Any, allow_nan: Any, out: Any
) -> Any:
    """Block of rows by block of rows, tree by tree, eight rows abreast."""
    stride = np.uint64(2 * X.shape[1] + 1)
    keys = np.empty(ROWS_PER_BLOCK * (2 * X.shape[1] + 1), np.int32)
    x = np.empty(1, np.float32)
    bits = x.view(np.int32)
    for first in range(0, X.shape[0], ROWS_PER_BLOCK):
        block = X[first : first + ROWS_PER_BLOCK]
        sums = out[first : first + ROWS_PER_BLOCK]
        n_rows = len(block)
        for row in range(n_rows):
            flaw = _fill_keys(block, row, x, bits, allow_nan, keys, np.uint64(row) * stride)
            if flaw != _FINE:
                return flaw
        sums[:, :] = 0.0
        in_lanes = n_rows - n_rows % LANES
        for tree in range(len(bases)):
            base = bases[tree]
            for row in range(0, in_lanes, LANES):
                _walk_eight_rows(words, base, values, slot_bits, keys, stride, np.uint64(row), sums)
            for row in range(in_lanes, n_rows):
                begin = np.uint64(row) * stride
                _walk_one(words, base, values, slot_bits, keys, begin, sums, row)
        sums /= len(bases)
    return _FINE


class NumbaKernel:
    """Means over the trees by numba; needs C-contiguous float32 or float64 rows."""

    name: KernelName = "numba"

    def __init__(self, forest: PackedForest) -> None:
        self._few = _few
        self._many = _many
        self._forest = (
            forest.words.view(np.uint64),
            forest.bases.astype(np.uint64),
            forest.values,
            np.uint64(forest.slot_bits),
            forest.allow_nan,
        )

    def mean(self, X: Any, out: Float64s) -> int:
        """Write the mean of the leaves of each row of ``X`` into ``out``; report a flaw found."""
        run = self._few if len(X) < FEW_ROWS else self._many
        return int(run(X, *self._forest, out))
