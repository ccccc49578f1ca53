"""A proved scorer on disk, so that the next replica answers without loading scikit-learn.

For every model two files in ``<state_dir>/compiled``: ``forest-….npz`` (see ``stored``) and
``scorer-….msgpack``: the compiled preprocessing, and some rows with the very bits that scikit-learn
answered. Invariants:

- Only a scorer that was compiled and proved as a whole is saved.
- The folder belongs to this user and only this user can write it; from any other folder nothing is
  read. Who may write to it decides what is answered, as with the bundle's own root.
- Both names carry the model's SHA-256, the format and scikit-learn's version. The record opens with
  the SHA-256 of its rest, names that of the forest's file, and is written last.
- What is loaded must answer the kept rows with the kept bits; else it counts as absent.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from serve_app.model.forest import CompiledForest
from serve_app.model.manifest import MODEL_FILE, Manifest
from serve_app.model.pipeline import Preprocess, Scorer
from serve_app.model.preprocessing import Table, Unforeseen
from serve_app.model.rows import RowEncoder
from serve_app.model.stored import compiled_name, load_compiled, save_compiled

logger = logging.getLogger(__name__)

KEPT_ROWS: Final = 64
_DIGEST_BYTES: Final = 32


class StoredScorer(msgspec.Struct, frozen=True, kw_only=True):
    """The record beside the forest. ``features`` are names and types in the rows' order."""

    forest_sha256: bytes
    features: list[tuple[str, str]]
    table: Table
    rows: list[list[Any]]
    scores: bytes


class ScorerStore:
    """Scorers of this machine's user under ``folder``, which is made when it is first needed."""

    def __init__(self, folder: Path, *, user_id: int) -> None:
        self._folder = folder
        self._user_id = user_id

    def load(self, manifest: Manifest, preprocess: Preprocess) -> Scorer | None:
        """Rebuild the scorer of this bundle's model; None, with a log line, where none is sound.

        ``preprocess`` is called for rows that the compiled way does not take.
        """
        forest_path, record_path = self._paths(manifest)
        if not record_path.exists():
            return None
        try:
            self._require_private()
            record = _decode(record_path.read_bytes())
            if record.features != _described(manifest):
                raise ValueError("it was made for other features")
            if hashlib.sha256(forest_path.read_bytes()).digest() != record.forest_sha256:
                raise ValueError(f"{forest_path.name} has another SHA-256")
            scorer = _rebuilt(record, load_compiled(forest_path), manifest, preprocess)
        except (OSError, ValueError, msgspec.MsgspecError) as exc:
            logger.warning("stored scorer %s is not used: %s", record_path, exc)
            return None
        return scorer

    def save(self, manifest: Manifest, scorer: Scorer, rows: Sequence[Sequence[Any]]) -> None:
        """Keep a scorer that was proved on ``rows``; a log line says why it cannot be kept."""
        if scorer.encoder is None or not isinstance(scorer.forest, CompiledForest):
            return
        forest_path, record_path = self._paths(manifest)
        kept = [list(row) for row in rows if _is_taken(scorer, row)][:KEPT_ROWS]
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._require_private()
            save_compiled(scorer.forest, forest_path)
            record = StoredScorer(
                forest_sha256=hashlib.sha256(forest_path.read_bytes()).digest(),
                features=_described(manifest),
                table=scorer.encoder.table,
                rows=kept,
                scores=scorer.score(kept).tobytes() if kept else b"",
            )
            _replace(record_path, _encode(record))
        except (OSError, ValueError, TypeError) as exc:
            logger.warning("the scorer is not kept for the next replica: %s", exc)

    def _paths(self, manifest: Manifest) -> tuple[Path, Path]:
        name = compiled_name(manifest.sha256[MODEL_FILE])
        record = name.replace("forest-", "scorer-").removesuffix(".npz") + ".msgpack"
        return self._folder / name, self._folder / record

    def _require_private(self) -> None:
        status = self._folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
            raise ValueError(f"{self._folder} has mode {status.st_mode & 0o777:o}, 700 is wanted")
        if status.st_uid != self._user_id:
            raise ValueError(f"{self._folder} belongs to user {status.st_uid}")


def _rebuilt(
    record: StoredScorer, forest: CompiledForest, manifest: Manifest, preprocess: Preprocess
) -> Scorer:
    encoder = RowEncoder(record.table, manifest.features)
    scorer = Scorer(preprocess=preprocess, forest=forest, encoder=encoder, reason=None)
    if scorer.classes != manifest.classes:
        raise ValueError(f"its classes are {scorer.classes}")
    if record.rows and scorer.score(record.rows).tobytes() != record.scores:
        raise ValueError("it answers the kept rows differently")
    return scorer


def _is_taken(scorer: Scorer, row: Sequence[Any]) -> bool:
    """Whether the compiled way takes a row: asking about another would load scikit-learn."""
    try:
        scorer.score_at_once([row])
    except (Unforeseen, ValueError):
        return False
    return True


def _described(manifest: Manifest) -> list[tuple[str, str]]:
    return [(feature.name, feature.dtype) for feature in manifest.features]


def _encode(record: StoredScorer) -> bytes:
    body = msgspec.msgpack.encode(record)
    return hashlib.sha256(body).digest() + body


def _decode(data: bytes) -> StoredScorer:
    body = data[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != data[:_DIGEST_BYTES]:
        raise ValueError("its checksum does not hold")
    return msgspec.msgpack.decode(body, type=StoredScorer)


def _replace(path: Path, data: bytes) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_bytes(data)
    staged.replace(path)
