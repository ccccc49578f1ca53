"""Treeline's report, under the same harness as the others."""

import pyarrow as pa
from harness import Judge, run

from monitoring.analysis.drift import WindowSummary, fit_baseline, judge


def prepare(baseline: pa.Table) -> Judge:
    profile = fit_baseline(baseline)

    def judged(window: pa.Table) -> tuple[bool, float]:
        summary = WindowSummary(profile.layout)
        summary.update(window)
        report = judge(profile, summary)
        return report.alarm, -(report.p_value or 1.0)

    return judged


if __name__ == "__main__":
    run(prepare)
