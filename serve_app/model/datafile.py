"""Read a person's table: Parquet or CSV, from disk or any fsspec URL."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd

from monitoring.analysis.stored import table_of_bytes
from serve_app.errors import BundleUnbuildable


def read_datafile(
    path: str | Path, *, storage_options: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Read a whole table; a name with ``.csv`` in its suffixes is CSV, any other Parquet.

    BundleUnbuildable when the file is not there, is not of its kind, or names a column twice.
    """
    is_csv = ".csv" in Path(str(path)).suffixes
    try:
        with fsspec.open(
            str(path), "rb", compression="infer" if is_csv else None, **(storage_options or {})
        ) as file:
            if is_csv:
                frame = pd.read_csv(file)
            else:  # pandas hands Arrow's threads the file: see ``table_of_bytes``
                frame = table_of_bytes(file.read()).to_pandas(use_threads=False)
    except Exception as exc:  # pandas, pyarrow and fsspec each raise their own
        kind = "CSV" if is_csv else "Parquet"
        raise BundleUnbuildable(
            f"{path} can't be read as {kind}: {type(exc).__name__}: {exc}"
        ) from exc
    twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
    if twice:
        raise BundleUnbuildable(f"{path}: columns named more than once: {', '.join(twice)}")
    return frame
