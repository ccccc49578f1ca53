"""A random forest as flat arrays: one 64-bit word per node, made for walking.

Layout of a word, from the lowest bit:

- split: 32 bits threshold key, ``slot_bits`` bits slot, the child's offset, sign bit 0;
- leaf: 32 bits row of ``values``, slot ``2 * n_features``, its own offset as child, sign bit 1.

Invariants:

- A node's children are neighbours: the left one at ``base + child``, the right one after it.
- Thresholds are rounded *down* to float32, which decides ``x <= threshold`` alike for every float32
  ``x``, and turned into int32 keys in the order of the floats, so walking compares integers.
- A row is turned into ``2 * n_features + 1`` keys. Slot ``2f`` holds feature ``f`` with NaN as the
  smallest key, so that it goes left everywhere; slot ``2f + 1`` holds it with NaN as the largest.
  Which slot a node reads says where its missing values go; walking needs no test for NaN.
- The last slot always holds the smallest key: a leaf leads to itself, and a walk may go on too long
  without harm. All lanes of a group have arrived when all their words are negative.
- Of two children, the subtree that training filled more lies directly behind its parent's pair, so
  a typical path stays on few cache lines.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

LOWEST_KEY: Final = np.iinfo(np.int32).min
HIGHEST_KEY: Final = np.iinfo(np.int32).max
LEAF_FLAG: Final = np.int64(np.iinfo(np.int64).min)
META_BITS: Final = 31  # of a word's upper half; its sign bit marks leaves
WORDS_PER_CACHE_LINE: Final = 8

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]


class Flaw(IntEnum):
    """What a kernel may find wrong with its rows."""

    NONE = 0
    INFINITE = 1  # or too large for float32
    MISSING = 2  # NaN, and the forest refuses it


class ForestTooLarge(ValueError):
    """A tree has more nodes than a word can address beside the forest's features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedForest:
    """The walkable form of a fitted forest; ``values[i]`` is what one leaf adds to a row's sum.

    ``bases`` gives the root of each tree in ``words``, in the order in which scikit-learn sums.
    """

    words: Int64s
    bases: Int64s
    values: Float64s  # (distinct leaf values, outputs x classes)
    slot_bits: int
    n_features: int
    depth: int
    allow_nan: bool

    @property
    def n_trees(self) -> int:
        return len(self.bases)

    @property
    def width(self) -> int:
        return int(self.values.shape[1])


def keys_of(x: Float32s) -> Int32s:
    """Map float32 to int32 so that the order stays; both zeros get one key. NaN has no meaning."""
    bits = (x + np.float32(0.0)).view(np.int32)
    return bits ^ ((bits >> 31) & np.int32(HIGHEST_KEY))


def floor_float32(thresholds: Float64s) -> Float32s:
    """Round down to float32.

    >>> bool(floor_float32(np.array([0.1]))[0] <= 0.1), float(floor_float32(np.array([1e300]))[0])
    (True, 3.4028234663852886e+38)
    """
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    above = nearest.astype(np.float64) > thresholds
    return np.where(above, np.nextafter(nearest, np.float32(-np.inf)), nearest)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nodes:
    """All nodes of all trees one after the other; children are global numbers, -1 at leaves."""

    left: Int64s
    right: Int64s
    feature: Int64s
    threshold: Float64s
    missing_left: npt.NDArray[np.bool_]
    samples: Int64s
    value: Float64s
    roots: Int64s


def _concatenate(trees: list[Any]) -> _Nodes:
    counts = np.array([tree.node_count for tree in trees], dtype=np.int64)
    roots = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)

    def children(side: str) -> Int64s:
        parts = [getattr(tree, side) for tree in trees]
        return np.concatenate(
            [np.where(part < 0, -1, part + root) for part, root in zip(parts, roots, strict=True)]
        ).astype(np.int64)

    return _Nodes(
        left=children("children_left"),
        right=children("children_right"),
        feature=np.concatenate([tree.feature for tree in trees]).astype(np.int64),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        missing_left=np.concatenate([tree.missing_go_to_left for tree in trees]).astype(np.bool_),
        samples=np.concatenate([tree.n_node_samples for tree in trees]).astype(np.int64),
        value=np.concatenate([tree.value.reshape(tree.node_count, -1) for tree in trees]),
        roots=roots,
    )


def _levels(nodes: _Nodes) -> list[Int64s]:
    """Split nodes by depth, over all trees at once."""
    levels = [nodes.roots]
    while True:
        splits = levels[-1][nodes.left[levels[-1]] >= 0]
        if not len(splits):
            return levels
        levels.append(np.concatenate([nodes.left[splits], nodes.right[splits]]))


def _offsets(nodes: _Nodes, levels: list[Int64s]) -> tuple[Int64s, Int64s]:
    """Place every node: its offset from its tree's base, and the number of pairs in its subtree.

    Pair 0 holds the root alone. A split whose own subtree starts with pair ``p`` puts its children
    there, the subtree of the fuller child from ``p + 1`` on, and the other one's behind that.
    """
    pairs = np.zeros(len(nodes.left), dtype=np.int64)
    for level in reversed(levels):
        splits = level[nodes.left[level] >= 0]
        pairs[splits] = 1 + pairs[nodes.left[splits]] + pairs[nodes.right[splits]]
    first_pair = np.zeros_like(pairs)
    first_pair[nodes.roots] = 1
    offset = np.zeros_like(pairs)
    for level in levels:
        splits = level[nodes.left[level] >= 0]
        left, right = nodes.left[splits], nodes.right[splits]
        offset[left] = 2 * first_pair[splits]
        offset[right] = offset[left] + 1
        fuller_left = nodes.samples[left] >= nodes.samples[right]
        fuller, other = np.where(fuller_left, (left, right), (right, left))
        first_pair[fuller] = first_pair[splits] + 1
        first_pair[other] = first_pair[fuller] + pairs[fuller]
    return offset, pairs


def _distinct(values: Float64s) -> tuple[Float64s, Int64s]:
    """Keep each leaf value once: deep trees repeat a few, and a short table stays in the cache."""
    positive_zero = values + 0.0  # sums start at +0.0, so the sign of a zero never shows
    table, rows = np.unique(positive_zero, axis=0, return_inverse=True)
    return np.ascontiguousarray(table), rows.reshape(-1).astype(np.int64)


def pack(trees: list[Any], *, n_features: int, allow_nan: bool) -> PackedForest:
    """Pack fitted scikit-learn ``tree_`` objects, in their order.

    Raises ForestTooLarge when slot and child do not fit into a word.
    """
    nodes = _concatenate(trees)
    levels = _levels(nodes)
    offset, pairs = _offsets(nodes, levels)
    leaf_slot = 2 * n_features
    slot_bits = int(leaf_slot).bit_length()
    if int(offset.max()) >> (META_BITS - slot_bits):
        raise ForestTooLarge(
            f"a tree needs {int(offset.max())} node offsets, {n_features} features leave room for "
            f"{1 << (META_BITS - slot_bits)}"
        )
    # Room for pair 0 and all others, rounded up so that every tree starts on a cache line.
    room = 2 * (1 + pairs[nodes.roots])
    room = -(-room // WORDS_PER_CACHE_LINE) * WORDS_PER_CACHE_LINE
    bases = np.concatenate([[0], np.cumsum(room)[:-1]]).astype(np.int64)
    tree_of = np.repeat(np.arange(len(trees)), [tree.node_count for tree in trees])

    is_leaf = nodes.left < 0
    values, value_row = _distinct(nodes.value[is_leaf])
    slot = np.where(is_leaf, leaf_slot, 2 * nodes.feature + ~nodes.missing_left)
    child = np.where(is_leaf, offset, offset[nodes.left])
    low = keys_of(floor_float32(nodes.threshold)).astype(np.int64)
    low[is_leaf] = value_row
    packed = (((child << slot_bits) | slot) << 32) | (low & 0xFFFFFFFF)
    packed[is_leaf] |= LEAF_FLAG
    words = np.zeros(int(room.sum()), dtype=np.int64)
    words[bases[tree_of] + offset] = packed
    return PackedForest(
        words=words,
        bases=bases,
        values=values,
        slot_bits=slot_bits,
        n_features=n_features,
        depth=len(levels) - 1,
        allow_nan=allow_nan,
    )
