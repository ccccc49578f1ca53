"""Versions held against what they should be by their feedback: from the store to standings."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from monitoring.agent.settings import LiveSettings
from monitoring.analysis.compare.moments import Moments
from monitoring.analysis.compare.sequences import MIN_UNITS
from monitoring.live import outcome_tables as tables
from monitoring.live.alerts import Alert, Cause
from monitoring.live.degrading import Against, Day, Standing, daily_alpha, now_of, standing
from monitoring.live.expectations import Expectation
from monitoring.live.outcomes import KINDS, Metric
from monitoring.live.store import DAY_S, Store
from monitoring.live.window import StreamKey

WORDS: Final[dict[Metric, str]] = {"accuracy": "accuracy", "rmse": "RMSE", "click": "click rate"}
BESIDE: Final[dict[Against, str]] = {
    "training": "at training",
    "champion": "the champion's",
    "own_past": "in its first week",
}


def standings(
    store: Store,
    key: StreamKey,
    expected: Expectation,
    settings: LiveSettings,
    *,
    known: Mapping[str, Alert],
) -> list[Standing]:
    """Judge a stream's newest day of each metric that has enough feedback."""
    beside = sum(other.model == key.model for other in store.streams())
    alpha = daily_alpha(settings.false_alarms_per_month, beside * len(KINDS))
    found = []
    for metric, day in sorted(_newest_days(store, key).items()):
        alert = known.get(cause_name(key, metric))
        still_open = alert is not None and alert.state == "open"
        found.append(standing(metric, day, expected.training, alpha, still_open=still_open))
    return found


def _newest_days(store: Store, key: StreamKey) -> dict[Metric, Day]:
    days: dict[Metric, Day] = {}
    for start_s, metric, sums in tables.sums_of(store.connection, key, DAY_S, 0.0, float("inf")):
        if sums.units >= MIN_UNITS:
            champion = None
            if metric == "click" and key.variant != "champion":
                champion = _champion(store, key.model, start_s)
            settled = tables.settled_days(store.connection, key, metric)
            days[metric] = Day(start_s=start_s, sums=sums, champion=champion, settled=settled)
    return days


def _champion(store: Store, model: str, start_s: int) -> Moments:
    found = [
        sums
        for key in store.streams()
        if key.model == model and key.variant == "champion"
        for _, metric, sums in tables.sums_of(store.connection, key, DAY_S, start_s, start_s + 1)
        if metric == "click"
    ]
    return sum(found, Moments())


def degraded(key: StreamKey, found: list[Standing]) -> dict[str, Cause]:
    """Make a cause of an alert of every standing that asks for retraining."""
    asked = urlencode({"model": key.model, "version": key.version, "step": "day"})
    return {
        cause_name(key, judged.metric): Cause(
            kind="quality",
            text=f"{key.model} {key.version} ({key.variant}) needs retraining: {in_words(judged)}",
            since_s=float(judged.day_start_s),
            link=f"/monitor/api/feedback?{asked}",
        )
        for judged in found
        if judged.degraded
    }


def in_words(judged: Standing) -> str:
    """Say a degraded standing as a sentence's end."""
    seen = f"on {judged.rate.requests} requests"
    if judged.settled is not None:
        seen = f"on {judged.settled.requests} requests of its newest whole day"
        seen = seen if judged.settled.week is None else "over its last week"
    beside = "" if judged.against is None else BESIDE[judged.against]
    return f"{WORDS[judged.metric]} {now_of(judged):.4g} {seen}, {judged.reference:.4g} {beside}"


def cause_name(key: StreamKey, metric: Metric) -> str:
    return f"quality:{key.model}/{key.version}/{key.variant}/{metric}"
