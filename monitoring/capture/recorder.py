"""The call in the request path: number, mask, encode and journal one event.

``record`` never raises and never waits, apart from one ``write`` into the page cache. When it has
returned, the event's number is in the journal, held in memory or counted as dropped.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from monitoring.capture.drops import DropReason
from monitoring.capture.journal import Journal
from monitoring.capture.masking import MaskingPolicy, mask_rows
from monitoring.capture.rowbytes import row_layout
from monitoring.events import CaptureCounts, Feature, PredictionEvent

_LARGEST_INT: Final = 2**63 - 1
_log = logging.getLogger(__name__)


class Recorder:
    """Recorder of one stream. ``features`` are the model's own, before masking.

    The journal's description carries the stream as it is logged; see ``logged_features``.
    """

    def __init__(
        self, journal: Journal, policy: MaskingPolicy, features: tuple[Feature, ...]
    ) -> None:
        self._journal = journal
        self._policy = policy
        self._row_masks = policy.row_masks(features)
        self._no_row: list[Any] = [None] * len(features)
        self._encode_row = row_layout(journal.description.stream).encode
        self._encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
        self._seq = 0

    def record(
        self,
        *,
        ts_us: int,
        request_id: str,
        status: int,
        latency_ms: float,
        inputs: Sequence[Sequence[Any]],
        labels: list[str] | None = None,
        scores: list[float] | None = None,
        probabilities: bytes | None = None,
        top_k: list[list[str]] | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        context_tags: Mapping[str, object] | None = None,
    ) -> None:
        """Capture one request; the fields are those of ``PredictionEvent``, not yet masked.

        A request without inputs is logged as one row of nulls, for an event without rows would
        leave no trace in a table of rows.
        """
        self._seq = seq = self._seq + 1
        try:
            policy = self._policy
            user = None if user_id is None else policy.mask_user_id(user_id)
            session = None if session_id is None else policy.mask_session_id(session_id)
            tags = policy.mask_tags(context_tags)
            event = PredictionEvent(
                seq,
                ts_us,
                request_id,
                status,
                latency_ms,
                mask_rows(inputs, self._row_masks) if inputs else [self._no_row],
                labels,
                scores,
                probabilities,
                top_k,
                user,
                session,
                tags,
            )
            self._journal.append(seq, self._encode_row(event) or self._body(event))
        except Exception:  # noqa: BLE001  capture never hurts serving; the drop is counted
            self._give_up(seq)

    def counts(self) -> CaptureCounts:
        """Counters since the process began; ``captured`` includes what was dropped."""
        journal = self._journal
        stream = journal.description.stream
        return CaptureCounts(
            producer=journal.description.producer,
            model=stream.model,
            version=stream.version,
            variant=stream.variant,
            captured=self._seq,
            acknowledged=journal.acknowledged,
            dropped=dict(journal.dropped),
            journal_bytes=journal.journal_bytes,
            journal_max_bytes=journal.limits.quota_bytes,
        )

    def _body(self, event: PredictionEvent) -> bytes:
        try:
            return self._encode(event)
        except (TypeError, ValueError, OverflowError):  # one odd value must not cost the event
            fields = msgspec.structs.asdict(event)
            return self._encode(PredictionEvent(**{k: _sound(v) for k, v in fields.items()}))

    def _give_up(self, seq: int) -> None:
        try:
            if self._journal.recorded < seq:
                self._journal.drop(seq, DropReason.UNENCODABLE)
        except Exception:  # noqa: BLE001  only a defect gets here; serving goes on
            _log.exception("event %d was lost", seq)


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as Python values; msgspec knows everything else."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in the log")


def _sound(value: Any) -> Any:
    """What of a value can be encoded: a float for a huge integer, null for what is unknown."""
    match value:
        case None | bool() | float() | bytes():
            return value
        case int():
            return value if abs(value) <= _LARGEST_INT else _near_float(value)
        case str():
            return value.encode("utf-8", "replace").decode()
        case list() | tuple():
            return [_sound(item) for item in value]
        case dict():
            return {_sound(name): _sound(item) for name, item in value.items()}
        case np.generic() | np.ndarray():
            return _sound(value.tolist())
        case _:
            return None


def _near_float(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
