import numpy as np
import pyarrow as pa
import pytest

from monitoring.analysis.drift.classifier import tell_apart
from monitoring.analysis.drift.errors import WindowUnusable
from tests.monitoring.analysis.drift.samples import changed, table


def test_equal_tables_cannot_be_told_apart():
    rng = np.random.default_rng(1)
    opinion = tell_apart(table(rng, 1_000), table(rng, 1_000), seed=0)
    assert opinion.p_value > 0.01
    assert abs(opinion.auc - 0.5) < 0.08


def test_a_change_of_three_columns_together_is_seen_though_no_pair_shows_it():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3, 4_000))
    x[1, 2] = np.abs(x[1, 2]) * np.sign(x[1, 0] * x[1, 1])
    before, after = (pa.table({f"f{i}": part[i] for i in range(3)}) for part in x)
    opinion = tell_apart(before, after, seed=0)
    assert opinion.p_value < 1e-6
    assert min(opinion.importance.values()) > 0.01


def test_the_column_that_changed_is_named_first():
    rng = np.random.default_rng(3)
    rows = table(rng, 1_000)
    colours = ["grey" if i % 4 else None for i in range(1_000)]
    opinion = tell_apart(table(rng, 2_000), changed(rows, "colour", colours), seed=0)
    assert next(iter(opinion.importance)) == "colour"


def test_few_rows_are_refused():
    rng = np.random.default_rng(4)
    with pytest.raises(WindowUnusable, match="50 rows, at least 100"):
        tell_apart(table(rng, 1_000), table(rng, 50), seed=0)
