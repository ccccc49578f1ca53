"""Fifty years of daily weather: seasonal, autocorrelated, and not ours."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from monitoring.analysis.drift import WindowSummary, fit_baseline, judge

WEATHER = Path(__file__).parents[5] / "shared/data/weather.csv"
YEAR = 365.25

pytestmark = pytest.mark.skipif(not WEATHER.exists(), reason="the weather data are not here")


@pytest.fixture(scope="module")
def weather() -> pa.Table:
    return pa.csv.read_csv(WEATHER)


def days(table: pa.Table, first: float, count: float) -> pa.Table:
    return table.slice(round(first), round(count))


def test_years_are_no_drift_and_summers_and_winters_are(weather):
    profile = fit_baseline(days(weather, 0, 10 * YEAR))

    def alarm(rows: pa.Table) -> bool:
        window = WindowSummary(profile.layout)
        window.update(rows)
        return judge(profile, window).alarm

    assert sum(alarm(days(weather, year * YEAR, YEAR)) for year in range(10, 20)) == 0
    for start in (0.0, 0.5):
        assert all(alarm(days(weather, (year + start) * YEAR, 91)) for year in range(10, 20))
