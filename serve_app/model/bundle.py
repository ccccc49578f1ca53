"""Bundles: versioned, hashed model folders ``<root>/<name>/<version>/``.

Invariants:

- The manifest is written last. A folder without one is no bundle: whoever reads it sees either
  the whole bundle or none.
- A version is immutable. Storing it again is refused; ``force`` first takes the old manifest
  away, so that a reader meets no bundle rather than half of two.
- A model is unpickled only from bytes whose hash has been compared with the manifest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from serve_app.errors import BundleExists, BundleInvalid
from serve_app.model.baseline import decode_baseline
from serve_app.model.estimator import (
    class_names,
    task_of,
    trained_names,
    trained_width,
    unpickle_model,
    use_one_thread,
    warn_of_other_sklearn,
)
from serve_app.model.manifest import (
    BASELINE_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Manifest,
    encode_manifest,
)
from serve_app.model.storage import BundleFolder
from serve_app.model.verify import VerifiedFiles, read_verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A loaded bundle; ``model`` is the scikit-learn estimator, set to one thread."""

    manifest: Manifest
    model: Any
    baseline: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedBundle:
    """A bundle in memory: the manifest and the bytes its hashes were made from."""

    manifest: Manifest
    contents: Mapping[str, bytes]


def store_bundle(
    root: str | Path,
    staged: StagedBundle,
    *,
    force: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """Write a bundle and return its URL; BundleExists when the version is there and not forced.

    What an interrupted attempt left (files without a manifest) is overwritten. Two writers of one
    version at one moment: S3 lets one manifest through, and where it is not the one that fits the
    files, the hashes refuse the bundle.
    """
    manifest = staged.manifest
    folder = BundleFolder(root, manifest.name, manifest.version, storage_options=storage_options)
    if MANIFEST_FILE in folder.files():
        if not force:
            raise BundleExists(
                f"{folder.url} exists, and a version is immutable: choose another version, "
                "or replace this one with --force"
            )
        folder.remove(MANIFEST_FILE)
    for file, data in staged.contents.items():
        folder.write(file, data, mode="overwrite")
    folder.write(MANIFEST_FILE, encode_manifest(manifest), mode="create")
    return folder.url


def load_bundle(
    root: str | Path,
    name: str,
    version: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Bundle:
    """Load a bundle: every file read once, hashed, compared, and only those bytes unpickled.

    Raises BundleNotFound, BundleTampered (before any unpickling), BundleInvalid when manifest,
    baseline and model do not agree, BundleStorageFailed. Another scikit-learn version than the
    bundle's is logged as a warning and not refused.
    """
    folder = BundleFolder(root, name, version, storage_options=storage_options)
    return unpack_bundle(read_verified(folder), folder.url)


def unpack_bundle(verified: VerifiedFiles, url: str) -> Bundle:
    """Unpickle the model out of files that have been verified; raises as ``load_bundle``."""
    manifest = verified.manifest
    baseline = decode_baseline(verified.contents[BASELINE_FILE], manifest.features, manifest.task)
    warn_of_other_sklearn(manifest.sklearn_version, source=url)
    source = f"{url}/{MODEL_FILE}"
    model = unpickle_model(verified.contents[MODEL_FILE], source=source).model
    check_model(model, manifest, source=source)
    use_one_thread(model)
    return Bundle(manifest=manifest, model=model, baseline=baseline)


def check_model(model: Any, manifest: Manifest, *, source: str) -> None:
    """Raise BundleInvalid unless the model is the one the manifest describes."""
    names = tuple(feature.name for feature in manifest.features)
    agreements = {
        "task": (task_of(model), manifest.task),
        "classes": (class_names(model), manifest.classes),
        "number of features": (trained_width(model) or len(names), len(names)),
        "features": (trained_names(model) or names, names),
    }
    for key, (found, expected) in agreements.items():
        if found != expected:
            raise BundleInvalid(f"{source}: {key} is {found!r}, the manifest says {expected!r}")
