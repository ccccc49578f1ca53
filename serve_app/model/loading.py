"""From a bundle's folder to a warm scorer, the shortest way that is sound.

The bundle's files are hashed in any case. Where an earlier replica has left this model's scorer,
scikit-learn is neither imported nor the model unpickled: that and the proof are most of a start.
"""

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from serve_app.model.manifest import Manifest
from serve_app.model.pipeline import Preprocess, Scorer, compile_scorer, model_preprocessing
from serve_app.model.storage import BundleFolder
from serve_app.model.stored_scorer import ScorerStore
from serve_app.model.verify import VerifiedFiles, read_verified

logger = logging.getLogger(__name__)

PROOF_ROWS: Final = 256  # of the baseline, on which the compiled forest proves that it is equal


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBundle:
    """What a replica needs of a bundle: its description and its model, ready to be asked."""

    manifest: Manifest
    scorer: Scorer


class LatePreprocessing:
    """The model's own preprocessing, unpickled when the first row needs it: that takes seconds."""

    def __init__(self, folder: BundleFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._loaded: Preprocess | None = None

    def __call__(self, rows: Sequence[Sequence[object]]) -> Any:
        with self._lock:
            if self._loaded is None:
                logger.info(
                    "a row takes scikit-learn's own preprocessing: loading %s", self._folder
                )
                bundle = _unpack(read_verified(self._folder), self._folder)
                features = bundle.manifest.logged_features()
                self._loaded = model_preprocessing(bundle.model, features)
        return self._loaded(rows)


def load_served(folder: BundleFolder, state_dir: Path) -> ServedBundle:
    """Verify a bundle and make its scorer hot.

    Raises as ``load_bundle``; what is wrong with a stored scorer is only logged.
    """
    store = ScorerStore(state_dir / "compiled", user_id=os.getuid())
    verified = read_verified(folder)
    manifest = verified.manifest
    scorer = store.load(manifest, LatePreprocessing(folder))
    if scorer is None:
        scorer = _compile(verified, folder, store)
    scorer.warm()
    return ServedBundle(manifest=manifest, scorer=scorer)


def _compile(verified: VerifiedFiles, folder: BundleFolder, store: ScorerStore) -> Scorer:
    """Prove the compiled model on the bundle's baseline, and keep it for the next replica."""
    bundle = _unpack(verified, folder)
    features = bundle.manifest.logged_features()
    columns = [bundle.baseline[f"x_{feature.name}"] for feature in features]
    values = zip(*(column[:PROOF_ROWS].to_pylist() for column in columns), strict=True)
    rows = [list(row) for row in values]
    scorer = compile_scorer(bundle.model, features, check_rows=rows)
    if scorer.reason:
        logger.warning("scikit-learn serves this model: %s", scorer.reason)
    else:
        store.save(bundle.manifest, scorer, rows)
    return scorer


def _unpack(verified: VerifiedFiles, folder: BundleFolder) -> Any:
    from serve_app.model.bundle import unpack_bundle  # brings scikit-learn and pandas along

    return unpack_bundle(verified, folder.url)
