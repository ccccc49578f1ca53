"""CPU time and memory of a large window, and of live updates."""

import time
import tracemalloc

import numpy as np
import pyarrow as pa

from benchmarks.drift.worlds import mixed_world, numbers_world
from monitoring.analysis.drift import WindowSummary, fit_baseline, judge


def cost(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for title, world in (("20 numbers", numbers_world), ("14 numbers, 6 categories", mixed_world)):
        profile = fit_baseline(pa.table(dict(world(rng, 50_000))))
        table = pa.table(dict(world(rng, rows)))
        judge(profile, WindowSummary(profile.layout))
        started = time.process_time()
        window = WindowSummary(profile.layout)
        window.update(table)
        summarised = time.process_time()
        judge(profile, window)
        judged = time.process_time()
        pool = pa.default_memory_pool()
        before = pool.bytes_allocated()
        tracemalloc.start()
        window = WindowSummary(profile.layout)
        window.update(table)
        judge(profile, window)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(
            f"{title}: {rows:,} rows summarised in {summarised - started:.2f} s, judged in "
            f"{judged - summarised:.3f} s; peak {peak / 1e6:.0f} MB (NumPy) "
            f"+ {max(pool.max_memory() - before, 0) / 1e6:.0f} MB (Arrow, whole run)"
        )
        for batch_rows in (100, 1_000, 10_000):
            batch = table.slice(0, batch_rows).combine_chunks().to_batches()[0]
            repeats = max(20_000 // batch_rows, 5)
            started = time.process_time()
            for _ in range(repeats):
                window.update(batch)
            each = (time.process_time() - started) / repeats / batch_rows
            print(f"  live update, batches of {batch_rows:,}: {each * 1e6:.2f} us a row")
