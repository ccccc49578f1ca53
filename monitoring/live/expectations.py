"""What a version's bundle says its traffic should look like: the drift profile and the limits.

The manifest and ``baseline.parquet`` are read straight from the bundle's folder, without the model
and without scikit-learn. What cannot be read is said in ``reason``, and tried again later; the
version's rows are counted all the same.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

import msgspec
import pyarrow as pa

from monitoring.agent.settings import InputLimits, SinkSettings
from monitoring.agent.sink import open_filesystem, root_path
from monitoring.analysis.drift.baseline import BaselineProfile, fit_baseline
from monitoring.analysis.drift.columns import comparable_predictions
from monitoring.analysis.stored import table_of_bytes
from monitoring.errors import MonitoringError, SinkUnavailable
from monitoring.events import FEATURE_PREFIX
from monitoring.live.rules import Rule, learned

log = logging.getLogger(__name__)

RETRY_S: Final = 60.0


class _FeatureSpec(msgspec.Struct, frozen=True):
    """The parts of a manifest's feature that traffic is held against."""

    name: str
    nullable: bool = True
    categories: tuple[str, ...] | None = None
    min: float | None = None
    max: float | None = None


class _Manifest(msgspec.Struct, frozen=True):
    features: tuple[_FeatureSpec, ...]
    quality: dict[str, Rule] = {}
    training_metrics: dict[str, float] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """``profile`` is None where there is nothing to compare with, for the ``reason`` given."""

    profile: BaselineProfile | None
    reason: str | None
    limits: dict[str, InputLimits] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    training: dict[str, float] = field(default_factory=dict)


NOTHING_KNOWN: Final = "the bundle has not been read yet"


def read_expectation(
    models: SinkSettings, model: str, version: str, changed_by_masking: frozenset[str]
) -> Expectation:
    """Read a bundle. Features whose masking changes values are neither compared nor limited.

    Raises ``SinkUnavailable`` where the bundle cannot be read, ``DriftError`` for a baseline
    that no window can be compared with.
    """
    folder = f"{root_path(models.url)}/{quote(model)}/{quote(version)}"
    try:
        filesystem = open_filesystem(models)
        manifest = msgspec.json.decode(
            filesystem.cat_file(f"{folder}/manifest.json"), type=_Manifest
        )
        data = filesystem.cat_file(f"{folder}/baseline.parquet")
        table = table_of_bytes(data, checksums=True)
    except Exception as error:  # each storage's client has its own tree of errors
        raise SinkUnavailable(f"cannot read bundle {folder}: {error!r}") from error
    kept = [f for f in manifest.features if f.name not in changed_by_masking]
    columns = [FEATURE_PREFIX + name for name in changed_by_masking]
    compared = comparable_predictions(table)
    compared = compared.drop_columns([c for c in columns if c in compared.column_names])
    return Expectation(
        profile=fit_baseline(compared),
        reason=None,
        limits={
            f.name: InputLimits(min=f.min, max=f.max, categories=f.categories)
            for f in kept
            if f.categories is not None or f.min is not None or f.max is not None
        },
        rules=_rules(table, kept) | manifest.quality,
        training=manifest.training_metrics,
    )


def _rules(table: pa.Table, features: list[_FeatureSpec]) -> dict[str, Rule]:
    return {
        f.name: learned(table.column(FEATURE_PREFIX + f.name).null_count / max(table.num_rows, 1))
        for f in features
        if FEATURE_PREFIX + f.name in table.column_names
    }


class Expectations:
    """Remembers what was read. ``read`` takes a model and a version; threads wait for it."""

    def __init__(self, read: Callable[[str, str], Expectation], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._mutex = threading.Lock()
        self._known: dict[tuple[str, str], Expectation] = {}
        self._retry_at_s: dict[tuple[str, str], float] = {}

    def of(self, model: str, version: str) -> Expectation:
        """Return what is known; the bundle is read first, and again a minute after a failure."""
        with self._mutex:
            key = (model, version)
            known = self._known.get(key)
            due = self._clock() >= self._retry_at_s.get(key, 0.0)
            if known is not None and (known.profile is not None or not due):
                return known
            try:
                known = self._read(model, version)
            except MonitoringError as error:
                log.warning("%s %s: no drift is looked for: %s", model, version, error)
                known = Expectation(profile=None, reason=str(error))
                self._retry_at_s[key] = self._clock() + RETRY_S
            self._known[key] = known
            return known

    def known(self, model: str, version: str) -> Expectation:
        """Return what is known without reading anything."""
        return self._known.get((model, version)) or Expectation(profile=None, reason=NOTHING_KNOWN)
