"""Reading the log back, as an analyst does."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

TABLE = (
    "read_parquet('{sink}/events/**/*.parquet', union_by_name=true, filename=true, "
    "hive_partitioning=false)"
)


def query(sink: Path, sql: str) -> list[tuple[Any, ...]]:
    """Run SQL in which ``{log}`` stands for all events of a local sink."""
    if not any(sink.glob("events/**/*.parquet")):
        return []
    with duckdb.connect() as connection:
        return connection.execute(sql.format(log=TABLE.format(sink=sink))).fetchall()


def wait_for(
    condition: Callable[[], bool],
    *,
    timeout_s: float,
    what: str,
    seen: Callable[[], object] = lambda: "",
) -> float:
    """Poll until a condition holds; return how long it took. What was seen instead is told."""
    started = time.monotonic()
    while time.monotonic() - started < timeout_s:
        if condition():
            return time.monotonic() - started
        time.sleep(0.25)
    raise AssertionError(f"{what} did not happen within {timeout_s} s {seen()}")


def verify(sink: str) -> dict[str, Any]:
    """Run `treeline ledger verify`; its exit code must agree with its verdict."""
    command = [str(Path(sys.executable).with_name("treeline")), "ledger", "verify", sink, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    verdict: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if verdict["ok"] else 1), done.stderr
    return verdict


def count(sink: Path, prefix: str) -> int:
    rows = query(sink, f"select count(*) from {{log}} where request_id like '{prefix}-%'")
    return int(rows[0][0]) if rows else 0
