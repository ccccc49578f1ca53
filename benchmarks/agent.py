"""How many rows a second one core takes from a received delivery to a stored Parquet file.

Beside it, in the same run: ``pq.write_table`` of the stored rows (of one million at most), as
a ready table (the floor). Memory is anonymous resident memory, its largest value in each tenth of
the run. Run as ``OMP_NUM_THREADS=1 python -m benchmarks.agent [--rows 1000000] [--group 1000]``.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.agent.intake import Intake
from monitoring.agent.settings import AgentSettings, SinkSettings, SpoolSettings
from monitoring.agent.sink import FsspecSink
from monitoring.agent.spool import Spool
from monitoring.agent.uploader import Uploader
from monitoring.events import DeliveryHeader, Feature, Stream, batch_schema, encode_delivery

FEATURES = 20
FLOOR_ROWS = 1_000_000
PARTS = 10
T0_US = 1_790_000_000_000_000
STREAM = Stream(
    model="bench",
    version="1",
    feature_set_version="1",
    variant="champion",
    task="classification",
    features=tuple(Feature(f"f{i}", "float64") for i in range(FEATURES)),
    classes=("no", "yes"),
)


def delivery(first: int, count: int, rng: np.random.Generator) -> bytes:
    """Single-row events with random inputs and ids of 32 characters."""
    score = rng.random(count)
    both = np.column_stack([1 - score, score]).astype(np.float32).ravel()
    columns = {
        "seq": np.arange(first, first + count),
        "row": np.zeros(count, np.int32),
        "ts": pa.array(T0_US + np.arange(first, first + count) * 100).cast(
            pa.timestamp("us", tz="UTC")
        ),
        "request_id": pa.array([f"{x:032x}" for x in rng.integers(0, 2**62, count).tolist()]),
        "status": np.full(count, 200, np.int16),
        "latency_ms": rng.gamma(2.0, 0.5, count),
        "label": pa.array(np.where(score > 0.5, "yes", "no")),
        "score": score,
        "probabilities": pa.ListArray.from_arrays(
            pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32)), pa.array(both)
        ),
        **{f"x_f{i}": rng.normal(size=count) for i in range(FEATURES)},
    }
    schema = batch_schema(STREAM)
    arrays = [
        pa.array(columns[f.name]).cast(f.type) if f.name in columns else pa.nulls(count, f.type)
        for f in schema
    ]
    header = DeliveryHeader(
        producer="3f0c6f1e9d8a-7",
        first=first,
        last=first + count - 1,
        events=count,
        dropped={},
        stream=STREAM,
        policy_id="p",
        node="node-1",
        env="bench",
    )
    return encode_delivery(header, pa.RecordBatch.from_arrays(arrays, schema=schema))


@dataclass(frozen=True, kw_only=True)
class Spent:
    """CPU time for so many rows, and the memory after each round of deliveries."""

    rows: int
    all_s: float
    intake_s: float
    memory_kb: list[int]


def run(rows: int, group: int, distinct: int) -> dict[str, float | list[int]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spent = feed(folder, rows, group, distinct)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        stored = sorted((folder / "sink").rglob("*.parquet"))
        size = sum(p.stat().st_size for p in stored)
        stored_rows = sum(pq.read_metadata(p).num_rows for p in stored)
        assert stored_rows == spent.rows, (stored_rows, spent.rows)
        floor_rows_per_s = floor(first_rows(stored), folder / "floor.parquet")
    return {
        "rows": spent.rows,
        "rows_per_s_per_core": spent.rows / spent.all_s,
        "intake_rows_per_s": spent.rows / spent.intake_s,
        "floor_rows_per_s": floor_rows_per_s,
        "ratio_to_floor": spent.rows / spent.all_s / floor_rows_per_s,
        "bytes_per_row": size / spent.rows,
        "files": len(stored),
        "resident_mb_max_by_tenth": by_tenth(spent.memory_kb),
        "peak_with_mapped_files_mb": peak_mb,
    }


def feed(folder: Path, rows: int, group: int, distinct: int) -> Spent:
    """Take deliveries in and store them, ``distinct`` at a time; making them is not counted."""
    rng = np.random.default_rng(1)
    settings = AgentSettings(
        policy_ids=("p",),
        state_dir=str(folder / "state"),
        sink=SinkSettings(url=str(folder / "sink")),
        spool=SpoolSettings(),
    )
    spool = Spool(folder / "state" / "spool" / "0", "e", settings.spool, 0.0)
    intake = Intake(settings, spool, time.time)
    uploader = Uploader(
        shard="0",
        spool=spool,
        sink=FsspecSink(settings.sink),
        retry=settings.retry,
        clock=time.time,
        chance=random.Random(1),
    )
    all_s = intake_s = 0.0
    done, memory_kb = 0, []
    while done < rows:
        batch = [delivery(done + 1 + i * group, group, rng) for i in range(distinct)]
        began = time.process_time()
        for payload in batch:
            intake.commit([payload])
        intake_s += time.process_time() - began
        spool.sync()
        while uploader.step():
            pass
        done += group * distinct
        all_s += time.process_time() - began
        memory_kb.append(resident_kb())
    began = time.process_time()
    spool.seal_everything(time.time())
    while uploader.step():
        pass
    all_s += time.process_time() - began
    return Spent(rows=done, all_s=all_s, intake_s=intake_s, memory_kb=memory_kb)


def resident_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/status has no RssAnon")


def by_tenth(memory_kb: list[int]) -> list[int]:
    """Largest value of each tenth of the samples, in MB."""
    parts = np.array_split(np.asarray(memory_kb), min(PARTS, len(memory_kb)))
    return [int(part.max()) // 1024 for part in parts]


def first_rows(stored: list[Path]) -> pa.Table:
    """As many files as hold ``FLOOR_ROWS`` rows, as one table; the first file in any case."""
    tables = [pq.read_table(stored[0])]
    for path in stored[1:]:
        if sum(table.num_rows for table in tables) >= FLOOR_ROWS:
            break
        tables.append(pq.read_table(path))
    return pa.concat_tables(tables)


def floor(table: pa.Table, path: Path) -> float:
    """Rows per CPU second of ``pq.write_table`` with its own defaults and zstd, best of three."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        pq.write_table(table, path, compression="zstd", compression_level=1)
        best = min(best, time.process_time() - began)
    return table.num_rows / best


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--group", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=100, help="deliveries made at a time")
    options = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    print(json.dumps(run(options.rows, options.group, options.distinct), indent=1))
