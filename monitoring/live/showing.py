"""From the store to views: what is known of one stream."""

from monitoring.agent.settings import LiveSettings
from monitoring.live.alerting import Alerting
from monitoring.live.expectations import Expectation
from monitoring.live.grading import standings
from monitoring.live.outcome_tables import sums_of
from monitoring.live.store import Store
from monitoring.live.verdicts import Verdicts
from monitoring.live.views import (
    DriftView,
    FeedbackView,
    OutcomeWindow,
    StreamView,
    WindowView,
)
from monitoring.live.window import StreamKey
from monitoring.live.wire import Question


def stream_view(store: Store, key: StreamKey, expected: Expectation) -> StreamView:
    totals = store.totals(key)
    return StreamView(
        model=key.model,
        version=key.version,
        variant=key.variant,
        events=totals.events,
        rows=totals.rows,
        missed_events=totals.missed_events,
        too_old_events=totals.too_old_events,
        baseline=expected.reason,
    )


def window_views(
    store: Store, key: StreamKey, expected: Expectation, question: Question
) -> list[WindowView]:
    layout = expected.profile.layout if expected.profile else None
    start_s, end_s = _span(question)
    return [
        WindowView(
            model=key.model,
            version=key.version,
            variant=key.variant,
            level_s=question.level_s,
            start_s=window_start_s,
            figures=window.figures,
            compared_rows=window.summary.rows if window.summary else 0,
        )
        for window_start_s, window in store.windows(
            key, question.level_s, start_s=start_s, end_s=end_s, layout=layout
        )
    ]


def drift_view(
    store: Store,
    key: StreamKey,
    expected: Expectation,
    settings: LiveSettings,
    question: Question | None,
) -> DriftView:
    """Return a stream's state, with the verdicts that a question asks for."""
    verdicts = Verdicts(store)
    state, threshold = verdicts.state(key)
    return DriftView(
        model=key.model,
        version=key.version,
        variant=key.variant,
        evidence=state.evidence.value,
        threshold=threshold,
        open_since_s=state.open_since_s,
        judged_to_s=state.judged_to_s,
        window_s=settings.drift_window_s,
        baseline=expected.reason,
        reports=verdicts.reports(key, *_span(question)) if question else [],
    )


def feedback_view(
    store: Store,
    key: StreamKey,
    expected: Expectation,
    settings: LiveSettings,
    question: Question | None,
) -> FeedbackView:
    """Return a stream's standing by its feedback, with the windows that a question asks for."""
    known = Alerting(store).known()
    asked = [] if question is None else [(question.level_s, *_span(question))]
    return FeedbackView(
        model=key.model,
        version=key.version,
        variant=key.variant,
        standings=standings(store, key, expected, settings, known=known),
        windows=[
            OutcomeWindow(start_s=start_s, metric=metric, sums=sums)
            for span in asked
            for start_s, metric, sums in sums_of(store.connection, key, *span)
        ],
    )


def _span(question: Question) -> tuple[float, float]:
    end_s = float("inf") if question.end_s is None else question.end_s
    return question.start_s or 0.0, end_s
