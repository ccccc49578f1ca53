"""What a bundle says about itself: ``manifest.json``.

Invariants:

- ``features`` stand in the order the model was trained in; names are unique.
- ``classes`` are the model's classes as text, in the model's order; empty for regression.
- ``sha256`` names every other file of the folder by its bare name, the model and the baseline at
  least. The manifest itself is not hashed: it protects against accidents and half-made copies,
  not against somebody who may write to the root.
- Unknown keys are ignored, so that an older reader takes a newer manifest.
"""

import math
import re
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from monitoring.events import Dtype, Feature
from serve_app.errors import BundleInvalid, BundleNameInvalid

MODEL_FILE: Final = "model.joblib"
BASELINE_FILE: Final = "baseline.parquet"
MANIFEST_FILE: Final = "manifest.json"

Task = Literal["classification", "regression"]

# No leading dot or dash, no slash: a name is one folder below its root and never a way out of it.
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z"
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input column as the training data had it.

    ``categories`` are the distinct texts of a string column, sorted, or None when there were too
    many to list; ``min`` and ``max`` are the range of a number column, or None when it was empty.
    """

    name: Annotated[str, msgspec.Meta(min_length=1)]
    dtype: Dtype
    nullable: bool
    categories: tuple[str, ...] | None = None
    min: int | float | None = None
    max: int | float | None = None

    def __post_init__(self) -> None:
        if self.categories is not None and self.dtype != "string":
            raise ValueError(f"feature {self.name!r}: only a string feature has categories")
        bounds = [bound for bound in (self.min, self.max) if bound is not None]
        if bounds and self.dtype not in ("float64", "int64"):
            raise ValueError(f"feature {self.name!r}: only a number feature has min and max")
        if not all(math.isfinite(bound) for bound in bounds):
            raise ValueError(f"feature {self.name!r}: min and max must be finite")
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise ValueError(f"feature {self.name!r}: min {bounds[0]} is above max {bounds[1]}")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``, checked; see the module's invariants."""

    name: Name
    version: Name
    feature_set_version: Name
    task: Task
    features: tuple[FeatureSpec, ...]
    classes: tuple[str, ...]
    sklearn_version: str
    created_at: Timestamp
    training_metrics: dict[str, int | float]
    sha256: dict[str, Sha256]

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names:
            raise ValueError("features: at least one is needed")
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"features: named more than once: {', '.join(twice)}")
        if (self.task == "classification") != bool(self.classes):
            raise ValueError(f"classes: {len(self.classes)} given for a {self.task} model")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: each may stand only once")
        for file in (MODEL_FILE, BASELINE_FILE):
            if file not in self.sha256:
                raise ValueError(f"sha256: {file} is not listed")
        for file in self.sha256:
            if file == MANIFEST_FILE or not re.match(NAME_PATTERN, file):
                raise ValueError(f"sha256: {file!r} is not the bare name of another file")

    def logged_features(self) -> tuple[Feature, ...]:
        """Features as the log's stream describes them."""
        return tuple(Feature(name=f.name, dtype=f.dtype) for f in self.features)


def check_name(kind: str, value: str) -> str:
    """Return ``value`` when it may be a name or a version; raise BundleNameInvalid otherwise.

    >>> check_name("version", "1.0.0-rc.1")
    '1.0.0-rc.1'
    """
    if not re.match(NAME_PATTERN, value):
        raise BundleNameInvalid(
            f"{kind} {value!r} is not allowed: 1 to 128 of A-Z a-z 0-9 . _ - are, "
            "a letter or a digit first"
        )
    return value


def encode_manifest(manifest: Manifest) -> bytes:
    """Write the manifest as indented JSON, for people to read."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Read and check a manifest; raise BundleInvalid naming the key that is wrong."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BundleInvalid(f"{MANIFEST_FILE}: {exc}") from exc
