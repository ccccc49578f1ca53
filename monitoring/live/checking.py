"""The last closed window of each stream held against the rules of data quality."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from monitoring.agent.settings import LiveSettings
from monitoring.live.alerts import Alert, Cause
from monitoring.live.expectations import Expectation
from monitoring.live.rules import KINDS, Kind, findings
from monitoring.live.store import Store
from monitoring.live.views import QualityView
from monitoring.live.window import StreamKey

WORDS: Final[dict[Kind, str]] = {
    "missing": "is missing",
    "outside": "is out of range",
    "unseen": "is unseen in training",
}


def check_window(
    store: Store,
    key: StreamKey,
    expected: Expectation,
    settings: LiveSettings,
    *,
    known: Mapping[str, Alert],
    now_s: float,
) -> QualityView:
    """Hold a stream's last closed window against its rules; open alerts last until it is well."""
    still_open = frozenset(
        (feature, kind)
        for feature in expected.rules
        for kind in KINDS
        if (alert := known.get(_cause(key, feature, kind))) and alert.state == "open"
    )
    view = QualityView(key.model, key.version, key.variant, None, 0, 0, [])
    length_s = settings.drift_window_s
    end_s = now_s - settings.late_s - length_s + 1e-6
    for start_s, window in store.windows(key, length_s, end_s=end_s)[-1:]:
        view.start_s, view.events, view.rows = start_s, window.figures.events, window.figures.rows
        view.findings = findings(window.figures, expected.rules, still_open)
    return view


def broken_rules(view: QualityView) -> dict[str, Cause]:
    """Make a cause of an alert of every broken rule."""
    key = StreamKey(view.model, view.version, view.variant)
    asked = urlencode({"model": view.model, "version": view.version})
    return {
        _cause(key, finding.feature, finding.kind): Cause(
            kind="data",
            text=f"{key.model} {key.version} ({key.variant}): {finding.share:.2%} of "
            f"`{finding.feature}` {WORDS[finding.kind]}, {finding.limit:.2%} allowed",
            since_s=float(view.start_s or 0),
            link=f"/monitor/api/quality?{asked}",
        )
        for finding in view.findings
        if finding.broken
    }


def _cause(key: StreamKey, feature: str, kind: Kind) -> str:
    return f"data:{key.model}/{key.version}/{key.variant}/{feature}/{kind}"
