"""A run's files: ``result.json``, ``seconds.csv`` and ``requests.parquet``, the report beside them.

``requests.parquet`` has one line per request that was sent, under the id it carried, so it joins
with the prediction log on ``request_id``: what was lost on the way is what is missing there.
"""

import csv
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autoscaling.errors import in_words
from autoscaling.loadtest.errors import ResultInvalid, ResultUnwritable
from autoscaling.loadtest.recording import Outcome, Recording
from autoscaling.loadtest.results import FORMAT, Result, Second

RESULT: Final = "result.json"
SECONDS: Final = "seconds.csv"
REQUESTS: Final = "requests.parquet"
REPORT: Final = "report.html"
COMPARISON: Final = "compare.html"


class _Head(msgspec.Struct, frozen=True):
    format: str = ""


def make_folder(folder: Path) -> None:
    """Make sure the results can be kept, before a long run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ResultUnwritable(f"--out {folder}: {exc.strerror}") from exc


def save(result: Result, recording: Recording, folder: Path) -> None:
    """Write all three files into an existing folder; those of an older run are replaced."""
    text = msgspec.json.format(msgspec.json.encode(result), indent=2)
    (folder / RESULT).write_bytes(text)
    with (folder / SECONDS).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Second.__struct_fields__)
        writer.writerows(msgspec.structs.astuple(second) for second in result.seconds)
    pq.write_table(requests_table(recording), folder / REQUESTS, compression="zstd")


def load(path: Path) -> Result:
    """Read ``result.json``, given itself or by its folder; ResultInvalid when it is none."""
    file = path / RESULT if path.is_dir() else path
    try:
        data = file.read_bytes()
        found = msgspec.json.decode(data, type=_Head).format
        if found != FORMAT:
            raise ResultInvalid(f"{file}: its format is {found!r}; {FORMAT!r} is needed")
        return msgspec.json.decode(data, type=Result)
    except (OSError, msgspec.DecodeError) as exc:
        raise ResultInvalid(f"{file}: {in_words(exc)}") from exc


def requests_table(recording: Recording) -> pa.Table:
    """One line per request that was begun, in the plan's order."""
    reached = np.flatnonzero(recording.outcome != Outcome.NOT_SENT)
    names = [outcome.name.lower() for outcome in Outcome]
    kinds = [kind.name for kind in recording.plan.kinds]
    planned_us = (recording.started_at_s + recording.plan.at_s[reached]) * 1e6
    columns = {
        "request_id": pa.array(map(recording.request_id, reached.tolist()), pa.string()),
        "kind": _named(recording.plan.kind[reached], kinds),
        "planned_at": pa.array(planned_us.astype(np.int64), pa.timestamp("us", tz="UTC")),
        "lag_ms": pa.array(recording.lag_ms[reached]),
        "latency_ms": pa.array(recording.latency_ms[reached]),
        "outcome": _named(recording.outcome[reached], names),
        "status": pa.array(recording.status[reached], mask=recording.status[reached] == 0),
        "written": pa.array(np.isfinite(recording.sent_s[reached])),
        "mismatched": pa.array(recording.mismatched[reached]),
    }
    return pa.table(columns)


def _named(codes: np.ndarray, names: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), names)
