"""Options of the commands that read the log, and how they become a place and a time."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from monitoring.agent.settings import SinkSettings
from monitoring.analysis.stored import Span, models_of

UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

SinkUrl = Annotated[str, typer.Option(help="Folder or URL of the log.")]
Model = Annotated[
    str | None, typer.Option(help="Model in the log; may be left out when there is one.")
]
From = Annotated[
    str | None, typer.Option("--from", help="First moment, as 2026-09-21 or 2026-09-21T14:00Z.")
]
To = Annotated[str | None, typer.Option("--to", help="End, not included; the same form.")]
Window = Annotated[
    str | None, typer.Option(help="Instead of --from: so long before the end, as 12h, 7d or 4w.")
]
EndpointUrl = Annotated[
    str | None, typer.Option(help="S3 endpoint; else AWS_ENDPOINT_URL, else AWS.")
]


def span_of(start: str | None, end: str | None, window: str | None, *, now: datetime) -> Span:
    """Make a span of what was given; without anything it is all of the log.

    >>> noon = datetime(2026, 9, 21, 12, tzinfo=UTC)
    >>> span_of(None, None, "12h", now=noon).start.isoformat()
    '2026-09-21T00:00:00+00:00'
    """
    until = None if end is None else moment("--to", end)
    if window is None:
        since = None if start is None else moment("--from", start)
    elif start is not None:
        raise typer.BadParameter("give --from or --window, not both")
    else:
        since = (until or now) - length(window)
    if since is not None and until is not None and since >= until:
        raise typer.BadParameter(f"--from is {since.isoformat()}; allowed: before --to")
    return Span(start=since, end=until)


def moment(option: str, text: str) -> datetime:
    """Read a moment; one without a time zone is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise typer.BadParameter(
            f"{option} is {text!r}; allowed: as 2026-09-21 or 2026-09-21T14:00Z"
        ) from exc
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def length(window: str) -> timedelta:
    """Read a window's length.

    >>> length("90m").total_seconds()
    5400.0
    """
    found = re.fullmatch(r"(\d{1,5})([smhdw])", window)
    if not found or int(found[1]) == 0:
        raise typer.BadParameter(
            f"--window is {window!r}; allowed: a number up to 99999 and s, m, h, d or w, as in 7d"
        )
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def model_in(settings: SinkSettings, given: str | None) -> str:
    """Return the model that was named, or the only one there is."""
    if given is not None:
        return given
    found = models_of(settings)
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise typer.BadParameter(f"--model is needed: {settings.url} holds {names}")
    return found[0]
