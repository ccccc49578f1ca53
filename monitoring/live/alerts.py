"""Alerts: one state per cause, opened once and resolved once. Pure."""

from collections.abc import Mapping
from typing import Literal

import msgspec

State = Literal["open", "resolved"]


class Cause(msgspec.Struct, frozen=True):
    """Something that is wrong now; ``link`` is the path of its report on the application."""

    kind: str
    text: str
    since_s: float
    link: str


class Alert(msgspec.Struct, frozen=True):
    """The last that is known of a cause. ``number`` counts its openings, so that a receiver can
    tell a repeated message from a new alert: ``(cause, number, state)`` is sent at least once.
    """

    cause: str
    number: int
    state: State
    kind: str
    text: str
    link: str
    since_s: float
    changed_s: float


def changes(known: Mapping[str, Alert], causes: Mapping[str, Cause], now_s: float) -> list[Alert]:
    """Return the alerts that open or are resolved, given all causes there are now.

    >>> drift = Cause("drift", "age moved", 5.0, "/monitor/api/drift")
    >>> (opened,) = changes({}, {"drift:m": drift}, 9.0)
    >>> opened.state, changes({"drift:m": opened}, {"drift:m": drift}, 10.0)
    ('open', [])
    >>> [alert.state for alert in changes({"drift:m": opened}, {}, 10.0)]
    ['resolved']
    """
    changed = []
    for name, cause in causes.items():
        before = known.get(name)
        if before is None or before.state == "resolved":
            changed.append(
                Alert(
                    cause=name,
                    number=before.number + 1 if before else 1,
                    state="open",
                    kind=cause.kind,
                    text=cause.text,
                    link=cause.link,
                    since_s=cause.since_s,
                    changed_s=now_s,
                )
            )
    for name, before in known.items():
        if before.state == "open" and name not in causes:
            changed.append(msgspec.structs.replace(before, state="resolved", changed_s=now_s))
    return changed
