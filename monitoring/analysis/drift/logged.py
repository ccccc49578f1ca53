"""Windows of the stored log: files in, one summary per stream and window out.

Only answered rows count (status 200), each with its weight. Files are read one at a time, so memory
does not grow with the log. A window belongs to the moment its rows were answered (``ts``).
"""

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.agent.settings import SinkSettings
from monitoring.agent.sink import EVENTS, open_filesystem, root_path
from monitoring.analysis.drift.baseline import BaselineProfile
from monitoring.analysis.drift.errors import WindowUnusable
from monitoring.analysis.drift.summary import WindowSummary
from monitoring.analysis.stored import read_file
from monitoring.errors import SinkUnavailable, in_words

OK_STATUS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Stream:
    """A version's rows, of one segment where the log is split further."""

    version: str
    segment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedWindow:
    """One window of one stream; ``start`` and ``end`` in UTC, the end excluded."""

    stream: Stream
    start: datetime
    end: datetime
    summary: WindowSummary


def read_windows(
    sink: SinkSettings,
    model: str,
    *,
    window_s: float,
    profile_of: Callable[[str], BaselineProfile],
    by: Sequence[str] = (),
    version: str | None = None,
) -> list[LoggedWindow]:
    """Summarise a model's stored events, ordered by stream and time; empty windows are left out.

    ``by`` splits each version further by columns of the log (``variant``, ``x_region``).
    ``profile_of`` gives a version's baseline. Raises SinkUnavailable if the log cannot be read,
    WindowUnusable if a file does not fit the baseline.
    """
    found: dict[tuple[Stream, int], WindowSummary] = {}
    for path, table in _answered_rows(sink, model, version):
        name = _version_of(path)
        profile = profile_of(name)
        try:
            for key, rows in _split(table, name, by, window_s):
                window = found.setdefault(key, WindowSummary(profile.layout))
                window.update(rows, rows.column("weight").to_numpy())
        except WindowUnusable as exc:
            raise WindowUnusable(f"{path}: {exc}") from exc
    return [
        LoggedWindow(
            stream=stream,
            start=datetime.fromtimestamp(number * window_s, UTC),
            end=datetime.fromtimestamp((number + 1) * window_s, UTC),
            summary=summary,
        )
        for (stream, number), summary in sorted(found.items(), key=lambda item: item[0])
    ]


def _answered_rows(
    sink: SinkSettings, model: str, version: str | None
) -> Iterator[tuple[str, pa.Table]]:
    folder = f"{root_path(sink.url)}/{EVENTS}/model={quote(model, safe='')}"
    if version is not None:
        folder += f"/version={quote(version, safe='')}"
    try:
        filesystem = open_filesystem(sink)
        paths = sorted(filesystem.find(folder))
        if not paths and not filesystem.exists(root_path(sink.url)):
            raise FileNotFoundError(root_path(sink.url))
    except Exception as exc:  # each storage's client has its own tree of errors
        raise SinkUnavailable(f"cannot list {sink.url}: {in_words(exc)}") from exc
    for path in paths:
        # Files under a dot are not finished yet.
        if path.endswith(".parquet") and not posixpath.basename(path).startswith("."):
            table = read_file(filesystem, path)
            yield path, table.filter(pc.equal(table.column("status"), OK_STATUS))


def _version_of(path: str) -> str:
    part = next(part for part in path.split("/") if part.startswith("version="))
    return unquote(part.removeprefix("version="))


def _split(
    table: pa.Table, version: str, by: Sequence[str], window_s: float
) -> Iterator[tuple[tuple[Stream, int], pa.Table]]:
    """Split rows by window and segment; a null counts as a segment called "missing"."""
    absent = [name for name in by if name not in table.schema.names]
    if absent:
        raise WindowUnusable(f"the log has no column {absent[0]!r} to split by")
    micros = pc.cast(table.column("ts"), pa.int64()).to_numpy()
    numbers = pa.array(np.floor_divide(micros, int(window_s * 1e6)))
    labels = [pc.fill_null(pc.cast(table.column(name), pa.string()), "missing") for name in by]
    keyed = pa.table([numbers, *labels], names=["window", *by])
    for key in keyed.group_by(["window", *by]).aggregate([]).to_pylist():
        mask = pc.equal(keyed.column("window"), key["window"])
        for name in by:
            mask = pc.and_(mask, pc.equal(keyed.column(name), key[name]))
        segment = tuple((name, str(key[name])) for name in by)
        yield (Stream(version=version, segment=segment), int(key["window"])), table.filter(mask)
