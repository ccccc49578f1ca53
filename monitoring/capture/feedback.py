"""Feedback on its way to the log: the journal, sender and spool of predictions, another stream."""

from monitoring.capture.stream_capture import StreamCapture

Value = str | bool | int | float


class FeedbackCapture:
    """Takes feedback through a capture whose stream is ``feedback_stream(model)``."""

    def __init__(self, capture: StreamCapture) -> None:
        self._capture = capture

    def record(
        self,
        *,
        received_us: int,
        request_id: str,
        kind: str,
        value: Value,
        row: int | None = None,
        outcome_us: int | None = None,
    ) -> bool:
        """Keep one feedback; False when it could not be kept, which the ledger counts as dropped.

        When this returns True it is in the journal, or in memory while the disk is away: as
        durable as the log of an answered prediction.
        """
        before = sum(self._capture.counts().dropped.values())
        self._capture.recorder.record(
            ts_us=received_us,
            request_id=request_id,
            status=0,
            latency_ms=0.0,
            inputs=[[kind, value_text(value), value_number(value), row, outcome_us]],
        )
        return sum(self._capture.counts().dropped.values()) == before


def value_text(value: Value) -> str:
    """Write a value as a bundle writes its classes, so that labels can be compared.

    >>> [value_text(v) for v in ("good", 1, 1.0, 0.5, True)]
    ['good', '1', '1', '0.5', 'True']
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def value_number(value: Value) -> float | None:
    """Return a number or a truth value as a number; text has none."""
    return None if isinstance(value, str) else float(value)
