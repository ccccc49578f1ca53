"""Pictures of a column before and after, and of windows over time; needs the ``report`` extra."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monitoring.analysis.drift.baseline import BaselineProfile, ColumnBaseline
from monitoring.analysis.drift.bins import CategoryBins, NumberBins
from monitoring.analysis.drift.effects import decile_groups, slot_groups
from monitoring.analysis.drift.marginals import new_slots
from monitoring.analysis.drift.summary import WEIGHT_UNIT, WindowSummary
from monitoring.analysis.drift.timeline import JudgedWindow

Floats = NDArray[np.float64]

MAX_CATEGORIES: Final = 10
LEAST_SHARE: Final = 0.01  # below, a bar cannot be seen
MAX_LABEL: Final = 48
LEAST_P: Final = 1e-12
LEAST_EVIDENCE: Final = 1e-3
BEFORE, AFTER = "#9aa5b1", "#c2410c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Shares of all rows that a value or range has in training and in the window."""

    label: str
    before: float
    after: float


def column_bars(profile: BaselineProfile, window: WindowSummary, index: int) -> list[Bar]:
    """Group a column's rows for people: deciles of a number, the categories that changed most.

    What was never seen in training and what is missing stand apart, where there is any.
    """
    layout, baseline = profile.layout, profile.columns[index]
    bins = layout.bins[index]
    before = baseline.counts.astype(np.float64)
    after = layout.part(window.counts, index) / WEIGHT_UNIT
    if isinstance(bins, CategoryBins):
        return _category_bars(bins, _shares(before), _shares(after))
    new = new_slots(bins, baseline)
    labels = [*number_labels(bins, baseline, slot_groups(baseline, new)), "never seen", "missing"]
    pairs = [_shares(decile_groups(baseline, counts, new)) for counts in (before, after)]
    return _bars(labels, *pairs)


def _category_bars(bins: CategoryBins, before: Floats, after: Floats) -> list[Bar]:
    change = np.abs(after - before)[: bins.other]
    most = np.sort(np.argsort(-change, kind="stable")[:MAX_CATEGORIES])
    shown = most[np.maximum(before, after)[most] >= LEAST_SHARE]
    hidden = np.setdiff1d(np.arange(bins.other), shown)
    rest = "never seen" if bins.complete else "others"
    labels = [
        *(bins.categories[int(place)].as_py() for place in shown),
        f"{len(hidden):,} {'other ' if len(shown) else ''}categories",
        rest,
        "missing",
    ]
    grouped = [
        np.array([*s[shown], s[hidden].sum(), s[bins.other], s[bins.missing]])
        for s in (before, after)
    ]
    return _bars(labels, *grouped)


def _bars(labels: list[str], before: Floats, after: Floats) -> list[Bar]:
    """Leave out what stands apart and is empty."""
    bars = [
        Bar(label=label, before=float(b), after=float(a))
        for label, b, a in zip(labels, before, after, strict=True)
    ]
    apart = ("never seen", "others", "missing", "0 other categories")
    return [bar for bar in bars if bar.before or bar.after or bar.label not in apart]


def _shares(counts: Floats) -> Floats:
    return counts / max(float(counts.sum()), 1e-9)


def number_labels(
    bins: NumberBins, baseline: ColumnBaseline, groups: NDArray[np.int64]
) -> list[str]:
    """Name each group by its value, or by the range that its training values are in."""
    filled = np.flatnonzero(baseline.counts[:-1] > 0)
    used = np.unique(groups[filled])
    if not len(used):
        return []
    firsts = [filled[groups[filled] == group][0] for group in used]
    lasts = [filled[groups[filled] == group][-1] for group in used]
    edges = np.concatenate([[-np.inf], bins.edges, [np.inf]])  # from which a slot begins
    above = [
        first > 0 and edges[first] <= np.nextafter(edges[first - 1], np.inf) for first in firsts
    ]
    # What begins just above a value of its own is told by that value.
    lows = [float(edges[first - just]) for first, just in zip(firsts, above, strict=True)]
    alone = [
        edges[last + 1] <= np.nextafter(edges[first], np.inf)
        for first, last in zip(firsts, lasts, strict=True)
    ]
    highest = float(edges[lasts[-1] + 1])
    ends = [*lows[1:], float(np.nextafter(highest, -np.inf)) if highest < np.inf else highest]
    digits = _digits([*lows, ends[-1]])
    return [
        rounded(low, digits) if single else _range(low, high, digits, above=just)
        for low, high, single, just in zip(lows, ends, alone, above, strict=True)
    ]


def _range(low: float, high: float, digits: int, *, above: bool) -> str:
    """Name a range whose ends may be infinite; ``above`` leaves the low one out."""
    if math.isinf(low) and math.isinf(high):
        return "all values"
    if math.isinf(low):
        return f"below {rounded(high, digits)}"
    if math.isinf(high):
        return f"above {rounded(low, digits)}"
    return f"{'above ' if above else ''}{rounded(low, digits)} to {rounded(high, digits)}"


def rounded(number: float, digits: int) -> str:
    """Write a number to some significant digits, without an exponent where people need none.

    >>> [rounded(x, 3) for x in (1267.9, -0.01234, 1.5e-9, 160_000.0)]
    ['1,270', '-0.0123', '1.5e-09', '160,000']
    """
    text = f"{number:.{digits}g}"
    return f"{float(text):,.15g}" if 1e-4 <= abs(number) < 1e7 else text


def _digits(numbers: list[float]) -> int:
    """Take as few digits, three at least, as tell neighbours apart."""
    for digits in range(3, 17):
        texts = [f"{number:.{digits}g}" for number in dict.fromkeys(numbers)]
        if all(a != b for a, b in pairwise(texts)):
            return digits
    return 17


def column_figure(title: str, bars: list[Bar], *, lying: bool) -> Figure:
    """Draw bars side by side; ``lying`` where their names are long."""
    height = 0.8 + 0.32 * len(bars) if lying else 2.8
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(bars))
    before, after = [bar.before for bar in bars], [bar.after for bar in bars]
    labels = [shortened(bar.label) for bar in bars]
    if lying:
        axes.barh(places - 0.2, before, 0.4, color=BEFORE, label="training")
        axes.barh(places + 0.2, after, 0.4, color=AFTER, label="window")
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(_percent)
    else:
        axes.bar(places - 0.2, before, 0.4, color=BEFORE, label="training")
        axes.bar(places + 0.2, after, 0.4, color=AFTER, label="window")
        axes.set_xticks(places, labels, fontsize=8)
        if sum(map(len, labels)) > 120:
            axes.tick_params("x", rotation=20)
        axes.yaxis.set_major_formatter(_percent)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", parse_math=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def _percent(value: float, _place: float) -> str:
    return f"{value:.3g}" if value == 0 else f"{value * 100:.3g}%"


def shortened(text: str) -> str:
    """Cut a long name in the middle; a dollar sign begins no formula.

    >>> shortened("a" * 60) == "a" * 23 + "…" + "a" * 24
    True
    """
    if len(text) > MAX_LABEL:
        half = MAX_LABEL // 2
        text = f"{text[: half - 1]}…{text[-half:]}"
    return text.replace("$", r"\$")


def timeline_figure(windows: list[JudgedWindow], threshold: float) -> Figure:
    """Draw evidence and p-values over time; alarms of the budget are marked."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    times: Any = [window.start for window in windows]
    evidence = [max(window.evidence.value, LEAST_EVIDENCE) for window in windows]
    upper.semilogy(times, evidence, color=BEFORE, marker=".")
    upper.axhline(threshold, color=AFTER, linestyle="--", label="alarm from here on")
    alarms: Any = [window.start for window in windows if window.evidence.alarm]
    for moment in alarms:
        upper.axvline(moment, color=AFTER, alpha=0.4)
    upper.set_ylabel("evidence")
    upper.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False)
    p_values = [
        np.nan if window.report.p_value is None else max(window.report.p_value, LEAST_P)
        for window in windows
    ]
    lower.semilogy(times, p_values, "o", markersize=4, color=BEFORE)
    single: Any = [window.start for window in windows if window.report.alarm]
    for moment in single:
        lower.axvline(moment, color=AFTER, alpha=0.25)
    lower.axhline(windows[0].report.alpha, color=AFTER, linestyle="--")
    lower.set_ylabel("p of one window")
    locator: Any = AutoDateLocator()  # type: ignore[no-untyped-call]
    lower.xaxis.set_major_locator(locator)
    lower.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
