"""Real, autocorrelated data: seasons and years of daily weather against whole years."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from monitoring.analysis.drift import (
    BaselineProfile,
    DriftReport,
    WindowSummary,
    fit_baseline,
    judge,
)

ALPHA = 0.01


def weather(source: Path, picture: Path | None) -> None:
    """Judge real seasons and years against ten years of daily weather."""
    table, year = pyarrow.csv.read_csv(source), 365.25

    def judged(profile: BaselineProfile, start: float, rows: int) -> DriftReport:
        window = WindowSummary(profile.layout)
        window.update(table.slice(round(start), rows))
        return judge(profile, window, alpha=ALPHA)

    even = [table.slice(round(y * year), 365) for y in range(0, 20, 2)]
    for title, rows, others in (
        ("years 0-9", table.slice(0, round(10 * year)), range(10, 20)),
        ("even years", pa.concat_tables(even), range(1, 20, 2)),
    ):
        profile = fit_baseline(rows)
        years = sum(judged(profile, y * year, 365).alarm for y in others)
        print(f"weather, baseline {title}: {years}/{len(others)} whole years alarm")
        for season, name in enumerate(("Jan-Mar", "Apr-Jun", "Jul-Sep", "Oct-Dec")):
            found = sum(judged(profile, (y + season / 4) * year, 91).alarm for y in others)
            print(f"  {name}: {found}/{len(others)} found as drift")
    if picture is not None:
        profile = fit_baseline(table.slice(0, round(10 * year)))
        draw_weather(picture, profile, judged, table.num_rows, year)


def draw_weather(
    picture: Path,
    profile: BaselineProfile,
    judged: Callable[[BaselineProfile, float, int], DriftReport],
    rows: int,
    year: float,
) -> None:
    """Plot every year's and every quarter's p-value after the baseline, alarms marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    for axes, length, title in zip(
        figure.subplots(2, 1, sharex=True), (365, 91), ("whole years", "quarters"), strict=True
    ):
        starts = np.arange(10 * year, rows - length, year * (1 if length > 91 else 0.25))
        reports = [judged(profile, start, length) for start in starts]
        p = [max(report.p_value or 1.0, 1e-12) for report in reports]
        colours = ["#c2410c" if report.alarm else "#9aa5b1" for report in reports]
        axes.scatter(starts / year, p, c=colours)
        axes.axhline(ALPHA, linestyle="--", color="#c2410c")
        axes.axvline(20, color="#9aa5b1")
        axes.set(yscale="log", ylabel="p of the report", title=f"{title} (baseline: years 0-9)")
    axes.set_xlabel("year")
    figure.savefig(picture, dpi=110)
