"""The HTML pages: one file each, pictures and style inside, nothing loaded from elsewhere."""

import base64
from datetime import datetime
from typing import TYPE_CHECKING, Final

from autoscaling.loadtest.compare import Comparison
from autoscaling.loadtest.errors import ReportUnavailable
from autoscaling.loadtest.results import Result

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_DECISIONS: Final = 200


def require_report() -> None:
    """Raise ReportUnavailable now, before a long run, when its report could not be drawn."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as exc:
        raise ReportUnavailable(
            f"the report needs {exc.name}; install the extra: pip install 'treeline-serve[report]'"
        ) from exc


def render_report(result: Result) -> str:
    """One run: verdict, health of the generator, pictures, tables, and what was asked."""
    require_report()
    from autoscaling.loadtest.pictures import draw_distribution, draw_timeline

    start_s = datetime.fromisoformat(result.started_at).timestamp()
    changes = [
        decision
        for before, decision in zip(
            (None, *result.scaling.decisions), result.scaling.decisions, strict=False
        )
        # Before the first one the replicas were those that ran.
        if (decision.target, decision.running)
        != ((before.target, before.running) if before else (decision.running,) * 2)
    ]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            result=result,
            start_s=start_s,
            timeline=draw_timeline(result),
            distribution=draw_distribution(result),
            changes=changes[-MAX_DECISIONS:],
            omitted=max(0, len(changes) - MAX_DECISIONS),
        )
    )


def render_comparison(comparison: Comparison, a: Result, b: Result) -> str:
    """Two runs: the table of ratios, what was asked differently, and their latencies together."""
    require_report()
    from autoscaling.loadtest.pictures import draw_comparison

    picture = draw_comparison(a, b, (comparison.a, comparison.b))
    template = _environment().get_template("compare.html.j2")
    return template.render(comparison=comparison, picture=picture)


def format_number(value: float | None, digits: int = 4) -> str:
    """Write a number for people: ``digits`` significant ones, thousands apart, a dash for None.

    >>> [format_number(v) for v in (None, 0.0, 0.123456, 12.3456, 1234567, 1234567.8)]
    ['–', '0', '0.1235', '12.35', '1,234,567', '1,234,568']
    """
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("autoscaling.loadtest"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.filters["percent"] = lambda share: "–" if share is None else f"{share:.2%}"
    # As an image an SVG keeps its ids to itself; inline, those of two pictures would clash.
    environment.filters["data_uri"] = lambda svg: (
        "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    )
    return environment
