"""Tables with known properties for the drift tests."""

import numpy as np
import pyarrow as pa

NAMES = np.array(["red", "green", "blue", "grey"])


def table(rng: np.random.Generator, rows: int) -> pa.Table:
    """Independent rows: five numbers, of which a and b correlate with 0.5, and a category."""
    z = rng.standard_normal((5, rows))
    z[1] = 0.5 * z[0] + np.sqrt(0.75) * z[1]
    return pa.table(
        {
            "a": z[0],
            "b": z[1],
            "skewed": np.exp(z[2]),
            "count": rng.poisson(2, rows),
            "gappy": np.where(rng.random(rows) < 0.05, np.nan, z[3]),
            "colour": NAMES[np.searchsorted([0.5, 0.8, 0.95], rng.random(rows))],
        }
    )


def changed(rows: pa.Table, name: str, values: object) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(values))


def autoregressive(rng: np.random.Generator, rows: int, rho: float) -> np.ndarray:
    """A stationary AR(1) process of variance 1, after a long run-in."""
    from scipy.signal import lfilter

    noise = rng.standard_normal(rows + 1000) * np.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise)[1000:]
