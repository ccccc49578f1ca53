"""What every peer script shares: read a folder's windows, judge each, print times and verdicts.

A peer runs in its own environment as `python PEER.py FOLDER`. The folder holds `baseline.parquet`
and `windows-*.parquet` with a window a row group. A verdict is whether anything is raised by the
peer's defaults, and a statistic that grows with the evidence, so that all can be compared at one
rate of false alarms.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Judge = Callable[[pa.Table], tuple[bool, float]]


def run(prepare: Callable[[pa.Table], Judge]) -> None:
    folder = Path(sys.argv[1])
    baseline = pq.read_table(folder / "baseline.parquet")
    started = time.process_time()
    judge = prepare(baseline)
    prepared = time.process_time() - started
    found = {}
    for path in sorted(folder.glob("windows-*.parquet")):
        file = pq.ParquetFile(path)
        verdicts, spent, above = [], [], 0.0
        for group in range(file.num_row_groups):
            window = file.read_row_group(group)
            before, started = _peak_mb(), time.process_time()
            flagged, statistic = judge(window)
            spent.append(time.process_time() - started)
            above = max(above, _peak_mb() - before)
            verdicts.append((bool(flagged), float(statistic)))
        name = path.stem.removeprefix("windows-")
        found[name] = {"verdicts": verdicts, "cpu_s": min(spent), "above_mb": above}
    print(json.dumps({"prepare_s": prepared, "peak_mb": _peak_mb(), "windows": found}))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
