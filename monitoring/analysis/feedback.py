"""Feedback joined to the answers it is about. Pure: tables in, tables out.

Invariants:

- Feedback comes late, out of order, twice, about requests nobody knows, and is corrected. Of all
  that was said about one (request, row, kind) the latest counts: by ``outcome_ts`` where the caller
  gave one, else by arrival. Its order in the log does not matter.
- It belongs to every stored answer to that request and row: champion and shadow alike, and all
  answers if a caller used one request id twice.
- Feedback without a row is about the request's only row; where there are several, a label can't be
  placed and is counted as ambiguous.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

OUTCOME: Final = "outcome"  # text as the caller sent it
NUMBER: Final = "outcome_number"  # the same as a number, truth values as 0 and 1; else null
DELAY: Final = "outcome_delay_s"  # from the answer to the outcome; null without one
_SAID: Final = ("request_id", "row")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinCounts:
    """What became of the feedback of one kind; all but the last two count feedback events.

    ``received == used + duplicates + corrected + unknown + ambiguous``. ``unknown`` feedback is
    about no stored answer: never asked, sampled out, or outside the time looked at.
    """

    received: int
    used: int
    duplicates: int
    corrected: int
    unknown: int
    ambiguous: int
    early: int  # used, though dated before its answer: somebody's clock is wrong
    rows: int  # answers looked at
    rows_with_outcome: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Answers in their own order with ``OUTCOME``, ``NUMBER`` and ``DELAY`` beside them."""

    rows: pa.Table
    counts: JoinCounts


def join_outcomes(events: pa.Table, feedback: pa.Table, kind: str) -> Joined:
    """Put the last word of one kind of feedback beside each answer it is about.

    ``events`` has one line per stored answer with ``request_id``, ``row`` and ``ts``; ``feedback``
    the columns of the log's feedback files.
    """
    said = feedback.filter(pc.equal(feedback["kind"], kind))
    placed, unknown, ambiguous = _placed(said, events)
    last, duplicates, corrected = last_words(placed)
    joined = _beside(events, last)
    delays = joined[DELAY]
    early = pc.sum(pc.less(delays, 0.0)).as_py() or 0
    return Joined(
        rows=joined,
        counts=JoinCounts(
            received=said.num_rows,
            used=last.num_rows,
            duplicates=duplicates,
            corrected=corrected,
            unknown=unknown,
            ambiguous=ambiguous,
            early=int(early),
            rows=joined.num_rows,
            rows_with_outcome=joined.num_rows - joined[OUTCOME].null_count,
        ),
    )


def last_words(said: pa.Table) -> tuple[pa.Table, int, int]:
    """Keep one line per (request, row); also return how many repeated and were corrected.

    A line superseded by one of the same value is a duplicate, by one of another value a correction.
    """
    when = pc.coalesce(said["outcome_ts"], said["ts"])
    keyed = said.append_column("_when", when)
    order = [(name, "ascending") for name in (*_SAID, "_when", "ts", "event_id")]
    keyed = keyed.sort_by(order).combine_chunks()
    if keyed.num_rows == 0:
        return keyed, 0, 0
    same = _equal_to_next(keyed["request_id"]) & _equal_to_next(keyed["row"])
    repeated = same & _equal_to_next(keyed["value"])
    superseded = np.append(same, False)
    duplicates = int(repeated.sum())
    return keyed.filter(pa.array(~superseded)), duplicates, int(same.sum()) - duplicates


def _equal_to_next(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Tell for all but the last line whether the next one holds the same; null equals null."""
    array = column.combine_chunks()
    codes = pc.fill_null(array.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
    return np.asarray(codes[:-1] == codes[1:])


def _placed(said: pa.Table, events: pa.Table) -> tuple[pa.Table, int, int]:
    """Give each feedback the row it is about; leave out and count what cannot be placed."""
    answered = events.select(["request_id", "row"]).group_by(["request_id", "row"]).aggregate([])
    requests = answered.group_by("request_id").aggregate([("row", "count"), ("row", "min")])
    lines = said.select(["request_id"]).append_column("_line", pa.array(np.arange(said.num_rows)))
    about = lines.join(requests, "request_id").sort_by("_line")
    ambiguous = pc.and_(pc.is_null(said["row"]), pc.greater(pc.fill_null(about["row_count"], 0), 1))
    row = pc.coalesce(said["row"], about["row_min"])
    placed = said.set_column(said.schema.get_field_index("row"), "row", row)
    certain = placed.filter(pc.invert(ambiguous))
    known = certain.join(answered, ["request_id", "row"], join_type="left semi")
    return known, certain.num_rows - known.num_rows, said.num_rows - certain.num_rows


def _beside(events: pa.Table, placed: pa.Table) -> pa.Table:
    known = pa.table(
        {
            "request_id": placed["request_id"],
            "row": placed["row"],
            OUTCOME: placed["value"],
            NUMBER: placed["number"],
            "_when": placed["_when"],
        }
    )
    keys = events.select(["request_id", "row", "ts"])
    keys = keys.append_column("_line", pa.array(np.arange(events.num_rows)))
    joined = keys.join(known, ["request_id", "row"], join_type="left outer").sort_by("_line")
    delay_us = pc.subtract(
        joined["_when"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()),
        joined["ts"].cast(pa.int64()),
    )
    delay_s = pc.divide(pc.cast(delay_us, pa.float64()), 1e6)
    result = events.append_column(OUTCOME, joined[OUTCOME])
    return result.append_column(NUMBER, joined[NUMBER]).append_column(DELAY, delay_s)
