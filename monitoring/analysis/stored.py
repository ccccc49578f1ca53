"""The stored log as tables: answers and feedback of one model, from any storage.

Only the columns that are asked for are decoded. Folders tell model, version and day, so that what
lies outside is not opened; the columns decide what counts.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from monitoring.agent.settings import SinkSettings
from monitoring.agent.sink import EVENTS, FEEDBACK, open_filesystem, root_path
from monitoring.errors import SinkUnavailable, in_words
from monitoring.events import FEEDBACK_SCHEMA, Stream, stored_schema

_NO_FEATURES: Final = Stream(
    model="", version="", feature_set_version="", variant="champion", task="regression", features=()
)
_MODEL: Final = re.compile(r"/model=([^/]+)/")
EVENT_SCHEMA: Final = stored_schema(_NO_FEATURES)  # what all events have in common


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From ``start`` up to ``end``, which is excluded; None is open."""

    start: datetime | None = None
    end: datetime | None = None

    def may_hold(self, path: str) -> bool:
        """Tell from a file's day whether it can hold anything of this span."""
        found = re.search(r"/date=(\d{4}-\d{2}-\d{2})/", path)
        if not found:
            return False
        day = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
        ended = self.start is not None and day + timedelta(days=1) <= self.start
        return not ended and (self.end is None or day < self.end)


def read_answers(
    settings: SinkSettings, model: str, span: Span, columns: Sequence[str]
) -> pa.Table:
    """Read a model's stored events, all versions and variants; ``ts`` is always among the columns.

    Raises ``SinkUnavailable`` when the storage or a file cannot be read.
    """
    wanted = pa.schema([EVENT_SCHEMA.field(name) for name in dict.fromkeys((*columns, "ts"))])
    folder = f"{EVENTS}/model={quote(model, safe='')}"
    tables = list(_tables(settings, folder, span, wanted))
    rows = pa.concat_tables([wanted.empty_table(), *tables])
    return _within(rows, span)


def models_of(settings: SinkSettings) -> list[str]:
    """Name the models that the log holds."""
    filesystem, root = _connected(settings)
    paths = filesystem.find(f"{root}/{EVENTS}")
    return sorted({unquote(found[1]) for path in paths if (found := _MODEL.search(path))})


def read_feedback(settings: SinkSettings, model: str, start: datetime | None) -> pa.Table:
    """Read what has been said about a model's answers since ``start``: no outcome comes before."""
    tables = _tables(settings, FEEDBACK, Span(start=start), FEEDBACK_SCHEMA)
    rows = pa.concat_tables([FEEDBACK_SCHEMA.empty_table(), *tables])
    return rows.filter(pc.equal(rows["model"], model))


def _within(rows: pa.Table, span: Span) -> pa.Table:
    if span.start is not None:
        rows = rows.filter(pc.greater_equal(rows["ts"], _scalar(span.start)))
    if span.end is not None:
        rows = rows.filter(pc.less(rows["ts"], _scalar(span.end)))
    return rows


def _scalar(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment, pa.timestamp("us", tz="UTC"))


def _connected(settings: SinkSettings) -> tuple[Any, str]:
    try:
        filesystem = open_filesystem(settings)
        root = root_path(settings.url)
        if not filesystem.exists(root):
            raise FileNotFoundError(root)
    except Exception as error:  # each storage's client has its own tree of errors
        raise SinkUnavailable(f"cannot list {settings.url}: {in_words(error)}") from error
    return filesystem, root


def _tables(
    settings: SinkSettings, folder: str, span: Span, schema: pa.Schema
) -> Iterator[pa.Table]:
    filesystem, root = _connected(settings)
    for path in sorted(filesystem.find(f"{root}/{folder}")):
        hidden = posixpath.basename(path).startswith(".")  # being written
        if path.endswith(".parquet") and not hidden and span.may_hold(path):
            yield read_file(filesystem, path, schema)


def read_file(filesystem: Any, path: str, schema: pa.Schema | None = None) -> pa.Table:
    """Read a Parquet file, only the columns of a schema and with its types where one is given.

    Raises ``SinkUnavailable`` when it cannot be read or is damaged.
    """
    try:
        table = table_of_bytes(filesystem.cat_file(path), schema.names if schema else None)
        return table if schema is None else table.select(schema.names).cast(schema)
    except Exception as error:  # each storage's own, and pyarrow's for a damaged file
        raise SinkUnavailable(f"cannot read {path}: {error!r}") from error


def table_of_bytes(
    data: bytes, columns: Sequence[str] | None = None, *, checksums: bool = False
) -> pa.Table:
    """Decode a Parquet file, in the calling thread and from memory; ``checksums`` are the pages'.

    A thread of Arrow's that lets go of a Python file while the interpreter ends aborts the process.
    Read in blocks, as s3fs does, a file of the log's size came as a whole, too.
    """
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=checksums) as file:
        return file.read(columns=columns, use_threads=False)
