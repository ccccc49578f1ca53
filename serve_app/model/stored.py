"""The packed form on disk, so that a new replica neither packs nor proves again.

One uncompressed ``.npz``: the arrays as they are, and ``header``, JSON as bytes. Nothing in it is
ever unpickled. Kernels do not check indices, so a file is read only after every word of it has been
seen to lead somewhere: children lie behind their parents (a walk ends), slots and values exist.

A compiled forest is proved equal before it is saved; whoever loads it relies on that, and on
``compiled_name``, which ties the file to the model's hash, to this format and to scikit-learn's
version.
"""

import json
import os
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from serve_app.model.forest import CompiledForest, ForestDescription
from serve_app.model.kernels import KernelName
from serve_app.model.packed import LEAF_FLAG, META_BITS, PackedForest

FORMAT: Final = 1
_ARRAYS: Final = ("words", "bases", "values")


def compiled_name(model_sha256: str) -> str:
    """Name the file for the model with this hash.

    >>> compiled_name("0f" * 32).startswith("forest-0f0f0f0f0f0f0f0f")
    True
    """
    return f"forest-{model_sha256}-{FORMAT}-sklearn{version('scikit-learn')}.npz"


def save_compiled(forest: CompiledForest, path: Path) -> None:
    """Write the packed form; readers see the old file or the whole new one.

    Raises ValueError when class labels are Python objects other than text.
    """
    packed, description = forest.packed, forest.description
    header = {
        "format": FORMAT,
        "estimator": description.estimator,
        "task": description.task,
        "n_outputs": description.n_outputs,
        "classes": [_plain_labels(classes) for classes in description.classes],
        "feature_names": description.feature_names,
        "slot_bits": packed.slot_bits,
        "n_features": packed.n_features,
        "depth": packed.depth,
        "allow_nan": packed.allow_nan,
    }
    arrays = {name: getattr(packed, name) for name in _ARRAYS}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with staged.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    staged.replace(path)


def load_compiled(
    path: Path, *, kernel: KernelName | None = None, threads: int | None = None
) -> CompiledForest:
    """Read what ``save_compiled`` wrote. Raises ValueError for any other content."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            header = json.loads(stored["header"].tobytes())
            arrays = {name: stored[name] for name in _ARRAYS}
        if header["format"] != FORMAT:
            raise ValueError(f"format is {header['format']}, this version reads {FORMAT}")
        packed = PackedForest(
            **arrays,
            slot_bits=header["slot_bits"],
            n_features=header["n_features"],
            depth=header["depth"],
            allow_nan=header["allow_nan"],
        )
        names = header["feature_names"]
        description = ForestDescription(
            estimator=header["estimator"],
            task=header["task"],
            classes=tuple(np.array(c["labels"], dtype=c["dtype"]) for c in header["classes"]),
            n_outputs=header["n_outputs"],
            feature_names=None if names is None else tuple(names),
        )
        check_words(packed)
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a compiled forest: {error}") from error
    return CompiledForest(packed, description, kernel=kernel, threads=threads)


def check_words(packed: PackedForest) -> None:
    """Raise ValueError unless every walk stays inside the arrays and ends at a leaf."""
    words, bases, values = packed.words, packed.bases, packed.values
    shapes = (words.ndim, bases.ndim, values.ndim) == (1, 1, 2)
    types = [array.dtype.str for array in (words, bases, values)] == ["<i8", "<i8", "<f8"]
    if not shapes or not types or not len(bases):
        raise ValueError("arrays have other shapes or types than a packed forest's")
    if not 0 < packed.slot_bits < META_BITS or 2 * packed.n_features >= 1 << packed.slot_bits:
        raise ValueError(f"slot_bits {packed.slot_bits} do not fit {packed.n_features} features")
    edges = np.append(bases, len(words))
    if bases[0] != 0 or (np.diff(edges) <= 0).any():
        raise ValueError("trees overlap or are empty")
    room = np.repeat(np.diff(edges), np.diff(edges))
    own = np.arange(len(words)) - np.repeat(bases, np.diff(edges))
    used = words != 0  # padding is never reached, as nothing leads to it
    meta = (words >> 32) & ((1 << META_BITS) - 1)
    slot, child = meta & ((1 << packed.slot_bits) - 1), meta >> packed.slot_bits
    leaf = (words & LEAF_FLAG) != 0
    split = used & ~leaf
    absolute = np.arange(len(words)) - own + child
    if not (child[leaf] == own[leaf]).all() or not (slot[leaf] == 2 * packed.n_features).all():
        raise ValueError("a leaf does not lead to itself")
    if not ((words[leaf] & 0xFFFFFFFF) < len(values)).all():
        raise ValueError("a leaf has no value")
    if not ((child[split] > own[split]) & (child[split] + 1 < room[split])).all():
        raise ValueError("a split leads backwards or out of its tree")
    if not (slot[split] < 2 * packed.n_features).all():
        raise ValueError("a split asks about a feature that does not exist")
    reached = np.concatenate([bases, absolute[split], absolute[split] + 1])
    if not used[reached].all():
        raise ValueError("a split leads to padding")


def _plain_labels(classes: npt.NDArray[Any]) -> dict[str, Any]:
    labels = classes.tolist()
    if classes.dtype == object and not all(type(label) is str for label in labels):
        raise ValueError(f"class labels {labels} are neither text nor of one NumPy type")
    return {"dtype": classes.dtype.str, "labels": labels}
