"""Which events are stored, and with which weight. Pure.

Every event has a fixed uniform number ``u``, made from its request id, so that input, output,
feedback, replicas and agents agree. An event is stored when ``u`` lies below its inclusion
probability, and its weight is the inverse of that probability:

1. an event that a keep-rule matches has probability 1;
2. any other has its variant's head rate;
3. times a factor that keeps the stored rows within the budget.

The budget's factor follows from *arrivals* alone, never from what was kept, so it says nothing
about ``u`` and weighted sums stay unbiased (Horvitz and Thompson, 1952). With ``B`` rows a second
allowed and ``N`` rows expected (those of the second before, at least ``B``), the ``A``-th row of a
second gets ``B/N`` while ``A <= N`` and ``B/N * (N/A)**2`` beyond. The sum over a second is at most
``2 B`` for any burst, and never quite zero for any row.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.agent.settings import InputLimits, SamplingSettings
from monitoring.events import FEATURE_PREFIX, Stream

# The codes are stored in spools: append, never reorder.
SAMPLED_BY: Final = (
    "rate",
    "budget",
    "rule:error",
    "rule:low_confidence",
    "rule:slow",
    "rule:out_of_range",
)
RATE, BUDGET, ERROR, LOW_CONFIDENCE, SLOW, OUT_OF_RANGE = range(6)
# Kept by rules or not, at least this share of the budget is left to everything else.
REST_SHARE: Final = 0.1

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTable:
    """The events of one batch, one entry each, and where their rows lie.

    Event ``i`` owns the rows ``starts[i]`` up to ``starts[i + 1]``; ``starts`` is one longer.
    """

    seqs: Ints
    starts: Ints
    ts_us: Ints

    @property
    def row_counts(self) -> Ints:
        return np.diff(self.starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """Rows that arrived in the second before and in this one, those kept by rules apart."""

    second: int = -1
    rows: float = 0.0
    rule_rows: float = 0.0
    rows_before: float = 0.0
    rule_rows_before: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Per event: stored or not, inverse inclusion probability, index into ``SAMPLED_BY``."""

    keep: Bools
    weight: Floats
    rule: npt.NDArray[np.int8]


def uniform(request_id: str) -> float:
    """Map a request id to [0, 1): the first 53 bits of its 8-byte BLAKE2b, over 2**53.

    >>> uniform("a")
    0.2537936105758485
    """
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def at_second(state: BudgetState, second: int) -> BudgetState:
    """Move on to a second; after a clock has stepped back nothing is known of the one before.

    One second back is the same second: deliveries of two threads may cross.
    """
    if state.second - 1 <= second <= state.second:
        return state
    follows = second == state.second + 1
    return BudgetState(
        second=second,
        rows_before=state.rows if follows else 0.0,
        rule_rows_before=state.rule_rows if follows else 0.0,
    )


def budget_factors(arrivals: Floats, state: BudgetState, rows_per_s: float) -> Floats:
    """Return the factor in (0, 1] for events before which ``arrivals`` rows came this second."""
    budget = max(rows_per_s - state.rule_rows_before, REST_SHARE * rows_per_s)
    expected = max(state.rows_before, budget)
    beyond = expected / np.maximum(arrivals, expected)
    return (budget / expected) * beyond * beyond


def out_of_range(batch: pa.RecordBatch, limits: Mapping[str, InputLimits]) -> Bools:
    """Return per row whether any input lies outside what training saw; missing values do not."""
    found = np.zeros(batch.num_rows, dtype=bool)
    names = set(batch.schema.names)
    for feature, limit in limits.items():
        if FEATURE_PREFIX + feature in names:
            found |= outside(batch.column(FEATURE_PREFIX + feature), limit)
    return found


def outside(column: pa.Array, limit: InputLimits) -> Bools:
    """Return per value whether it lies outside a limit; categories are for text only."""
    if pa.types.is_string(column.type):
        if limit.categories is None:
            return np.zeros(len(column), dtype=bool)
        known = pc.is_in(column, pa.array(limit.categories, pa.string()))
        new = pc.and_(pc.invert(known), pc.is_valid(column))
        return np.asarray(new.to_numpy(zero_copy_only=False), dtype=bool)
    if not pa.types.is_floating(column.type):
        column = pc.cast(pc.cast(column, pa.int64()), pa.float64(), safe=False)
    values = column.to_numpy(zero_copy_only=False)  # missing values are NaN and compare false
    low, high = (bound if bound is not None else np.nan for bound in (limit.min, limit.max))
    return np.asarray((values < low) | (values > high), dtype=bool)


def matched_rules(
    batch: pa.RecordBatch, events: EventTable, settings: SamplingSettings, stream: Stream
) -> Ints:
    """Return per event the index of the first keep-rule that matches, or -1.

    A regressor's score is its prediction and says nothing about confidence.
    """
    rules = settings.rules
    first_rows = events.starts[:-1]
    matched = np.full(len(events.seqs), -1, dtype=np.int64)
    limits = rules.out_of_range.get(stream.version)
    if limits and len(events.seqs):
        matched[np.logical_or.reduceat(out_of_range(batch, limits), first_rows)] = OUT_OF_RANGE
    if rules.slow_above_ms is not None:
        latency = batch.column("latency_ms").to_numpy(zero_copy_only=False)[first_rows]
        matched[latency > rules.slow_above_ms] = SLOW
    has_confidence = stream.task == "classification"
    if rules.low_confidence_below is not None and has_confidence and len(events.seqs):
        score = pc.fill_null(batch.column("score"), np.inf).to_numpy(zero_copy_only=False)
        lowest = np.minimum.reduceat(score, first_rows)
        matched[lowest < rules.low_confidence_below] = LOW_CONFIDENCE
    if rules.errors:
        status = batch.column("status").to_numpy(zero_copy_only=False)[first_rows]
        matched[status >= 500] = ERROR
    return matched


def decide(
    batch: pa.RecordBatch,
    events: EventTable,
    stream: Stream,
    settings: SamplingSettings,
    state: BudgetState,
) -> tuple[Decision, BudgetState]:
    """Decide about every event of a batch and return the state after it.

    ``state`` must stand at the second of the arrival (``at_second``). The budget counts rows as
    the head rate would keep them. Rules match on an event's first row, low confidence on its
    lowest score.
    """
    matched = matched_rules(batch, events, settings, stream)
    by_rule = matched >= 0
    rate = settings.rates.get(stream.variant, 1.0)
    probability = np.full(len(matched), rate)
    rule = np.full(len(matched), RATE, dtype=np.int8)
    wanted = np.where(by_rule, 0.0, events.row_counts * rate)
    if settings.rows_per_s is not None:
        arrivals = state.rows + np.cumsum(wanted)
        factors = budget_factors(arrivals, state, settings.rows_per_s)
        probability *= factors
        rule[factors < 1.0] = BUDGET
    probability[by_rule] = 1.0
    rule[by_rule] = matched[by_rule]
    keep = _below(batch.column("request_id"), events, probability)
    with np.errstate(divide="ignore"):
        weight = 1.0 / probability
    after = BudgetState(
        second=state.second,
        rows=state.rows + float(wanted.sum()),
        rule_rows=state.rule_rows + float(events.row_counts[by_rule].sum()),
        rows_before=state.rows_before,
        rule_rows_before=state.rule_rows_before,
    )
    return Decision(keep=keep, weight=weight, rule=rule), after


def _below(request_ids: pa.Array, events: EventTable, probability: Floats) -> Bools:
    """Compare each event's ``u`` with its probability; hash only where chance decides."""
    keep = probability >= 1.0
    open_events = np.flatnonzero((probability > 0.0) & ~keep)
    if len(open_events):
        ids = request_ids.take(pa.array(events.starts[open_events])).to_pylist()
        numbers = np.fromiter((uniform(i) for i in ids), dtype=np.float64, count=len(ids))
        keep[open_events] = numbers < probability[open_events]
    return keep
