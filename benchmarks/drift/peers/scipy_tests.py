"""Kolmogorov-Smirnov and chi-square with Bonferroni's correction: an engineer's afternoon."""

import numpy as np
import pyarrow as pa
from harness import Judge, run
from scipy import stats

ALPHA = 0.01


def prepare(baseline: pa.Table) -> Judge:
    before = {name: baseline.column(name).to_numpy() for name in baseline.schema.names}

    def judged(window: pa.Table) -> tuple[bool, float]:
        p = min(_p(values, window.column(name).to_numpy()) for name, values in before.items())
        return p <= ALPHA / len(before), -p

    return judged


def _p(before: np.ndarray, after: np.ndarray) -> float:
    if before.dtype.kind == "f":
        known = [values[~np.isnan(values)] for values in (before, after)]
        return float(stats.ks_2samp(*known, method="asymp").pvalue)
    names, codes = np.unique(
        np.concatenate([before.astype(str), after.astype(str)]), return_inverse=True
    )
    split = len(before)
    parts = (codes[:split], codes[split:])
    counts = np.stack([np.bincount(part, minlength=len(names)) for part in parts])
    return float(stats.chi2_contingency(counts).pvalue)


if __name__ == "__main__":
    run(prepare)
