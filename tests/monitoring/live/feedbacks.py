"""Feedback as deliveries, and what a judge makes of it."""

from dataclasses import dataclass

from monitoring.agent.settings import LiveSettings
from monitoring.events import Stream, feedback_stream
from monitoring.live import outcome_tables as tables
from monitoring.live.joining import Joining
from monitoring.live.store import DAY_S
from monitoring.live.window import StreamKey
from tests.monitoring.agent.conftest import STREAM, T0_US, delivery, rows_of
from tests.monitoring.live.worlds import DRIFT_WINDOW_S, KEY, World

SETTINGS = LiveSettings(drift_window_s=DRIFT_WINDOW_S, late_s=10.0)

REGRESSION = Stream(
    **{f: getattr(STREAM, f) for f in STREAM.__struct_fields__}
    | {"task": "regression", "classes": ()}
)


def predictions(seq: int, rows: int = 1, ts_us: int = T0_US):
    """Rows of a regression's answer; it predicts ten times the request's number."""
    made = rows_of(seq, rows=rows, ts_us=ts_us, score=10.0 * seq)
    return [row | {"label": None, "probabilities": None} for row in made]


@dataclass(frozen=True)
class Said:
    """One word: ``number`` of a request, its kind, value, row and both times."""

    request: int
    value: str = "good"
    kind: str = "label"
    row: int | None = 0
    after_s: float = 1.0
    dated_s: float | None = None


def number_of(value: str) -> float | None:
    """As if numbers had come as JSON numbers."""
    try:
        return float(value)
    except ValueError:
        return None


def feedback(words: list[Said], first: int = 1) -> bytes:
    def row_of(seq: int):
        said = words[seq - first]
        dated = None if said.dated_s is None else T0_US + int(said.dated_s * 1e6)
        return [
            {
                "seq": seq,
                "row": 0,
                "ts": T0_US + int(said.after_s * 1e6),
                "request_id": f"request-{said.request}",
                "status": 0,
                "latency_ms": 0.0,
                "x_kind": said.kind,
                "x_value": said.value,
                "x_number": number_of(said.value),
                "x_row": said.row,
                "x_outcome_ts_us": dated,
            }
        ]

    return delivery(
        first,
        first + len(words) - 1,
        producer="feedback",
        stream=feedback_stream("credit"),
        events=row_of,
    )


def join(world: World, after_s: float = 10.0) -> Joining:
    """Count, let the feedback settle and join it, with a judge that knows nothing yet."""
    world.count()
    world.agent.now_s += after_s
    joining = Joining(world.store, SETTINGS, world.agent.clock)
    joining.join_due()
    return joining


def sums(world: World, metric: str, key: StreamKey = KEY, level_s: int = DAY_S):
    """Return (requests, hits, rows) of all windows of a level."""
    found = [
        s
        for _, m, s in tables.sums_of(world.store.connection, key, level_s, 0.0, 1e18)
        if m == metric
    ]
    return tuple(int(sum(getattr(s, name) for s in found)) for name in ("units", "x", "n"))


def fates(world: World) -> dict[str, int]:
    return tables.fates(world.store.connection).get("credit", {})
