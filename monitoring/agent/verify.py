"""Prove from the stored files alone that no event is missing and none is there twice.

Three accounts must agree: the coverage and the row count in each file's metadata, the rows in it,
and the ledger's heads, which list the files with the same figures. A file no head lists yet is fine
(its agent died in between and will list it); a listed file that is gone is a gap. Numbers of a
producer start at 1, rows of an event at 0.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from monitoring.agent.intervals import Intervals
from monitoring.agent.ledger import Coverage, Covered, FileEntry, Head, Tally
from monitoring.agent.settings import SinkSettings
from monitoring.agent.sink import EVENTS, FEEDBACK, LEDGER, open_filesystem, root_path
from monitoring.errors import SinkUnavailable, in_words

ProblemKind = Literal["gap", "overlap", "duplicate", "unreadable"]
COVERAGE_KEY: Final = b"treeline.coverage"
ROWS_KEY: Final = b"treeline.rows"
ID_COLUMNS: Final = ("event_id", "producer", "seq", "row")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What does not add up. Unknown parts are empty or 0."""

    kind: ProblemKind
    producer: str = ""
    first: int = 0
    last: int = 0
    file: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``treeline ledger verify``; counts are events over all readable files."""

    ok: bool
    producers: int
    received: int
    written: int
    sampled_out: int
    dropped: dict[str, int]
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class _Evidence:
    """What has been read so far."""

    total: Tally = field(default_factory=Tally)
    covered: dict[str, list[tuple[Covered, str]]] = field(default_factory=dict)
    listed: dict[str, FileEntry] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


def verify(settings: SinkSettings, *, quick: bool = False) -> Verdict:
    """Read every file under a sink and judge. ``quick`` reads no feature columns.

    Raises ``SinkUnavailable`` when the sink itself cannot be listed.
    """
    filesystem = open_filesystem(settings)
    root = root_path(settings.url)
    evidence = _Evidence()
    # Heads first: a file stored and listed after that is news, not a contradiction.
    for path in _paths(filesystem, f"{root}/{LEDGER}", ".json", settings):
        _read_head(filesystem, path, root, evidence)
    for folder in (EVENTS, FEEDBACK):
        for path in _paths(filesystem, f"{root}/{folder}", ".parquet", settings):
            _read_file(filesystem, path, root, evidence, quick=quick)
    return _judge(evidence)


def _paths(filesystem: Any, folder: str, suffix: str, settings: SinkSettings) -> Iterator[str]:
    """List a folder's files; a folder that is not there yet is empty, a sink that is not raises."""
    try:
        found = filesystem.find(folder)
        if not found and not filesystem.exists(posixpath.dirname(folder)):
            raise FileNotFoundError(posixpath.dirname(folder))
    except Exception as error:  # each storage's client has its own tree of errors
        raise SinkUnavailable(f"cannot list {settings.url}: {in_words(error)}") from error
    for path in sorted(found):
        if path.endswith(suffix) and not posixpath.basename(path).startswith("."):
            yield path


def _read_head(filesystem: Any, path: str, root: str, evidence: _Evidence) -> None:
    try:
        head = msgspec.json.decode(filesystem.cat_file(path), type=Head)
    except (OSError, msgspec.DecodeError):
        evidence.problems.append(Problem(kind="unreadable", file=_relative(path, root)))
        return
    for entry in head.files:
        evidence.listed[entry.file] = entry  # heads sort by time: the last upload counts


def _read_file(filesystem: Any, path: str, root: str, evidence: _Evidence, *, quick: bool) -> None:
    name = _relative(path, root)
    evidence.present.add(name)
    columns = list(ID_COLUMNS) if quick else None
    try:
        # From memory: a thread of Arrow's that lets go of a Python file while the interpreter ends
        # aborts the process, which was seen in a few of a hundred short runs.
        source = pa.BufferReader(filesystem.cat_file(path))
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            metadata = file.metadata.metadata
            coverage = msgspec.json.decode(metadata[COVERAGE_KEY], type=Coverage)
            told_rows = int(metadata[ROWS_KEY])
            groups = range(file.num_row_groups)
            parts = [
                file.read_row_group(g, columns=columns, use_threads=False).select(ID_COLUMNS)
                for g in groups
            ]
            rows = pa.concat_tables(parts) if parts else file.schema_arrow.empty_table()
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        _note_unreadable(name, evidence)
        return
    if name.startswith(f"{FEEDBACK}/"):
        # Its ``row`` says what it is about; each feedback is one line of its own.
        at = rows.schema.get_field_index("row")
        rows = rows.set_column(at, "row", pa.repeat(pa.scalar(0, pa.int32()), rows.num_rows))
    for producer, ranges in coverage.items():
        for part in ranges:
            evidence.total.add(part)
            evidence.covered.setdefault(producer, []).append((part, name))
    problems = list(_row_problems(rows, coverage, name))
    listed = evidence.listed.get(name)
    if listed is not None:
        problems.extend(_contradictions(listed.coverage, coverage, name))
    if not problems:  # else they say more exactly which rows it is about
        told = {told_rows}
        if listed is not None and listed.coverage == coverage:
            told.add(listed.rows)
        problems.extend(_count_problems(told, len(rows), coverage, name))
    evidence.problems.extend(problems)


def _note_unreadable(name: str, evidence: _Evidence) -> None:
    """Name the file, and where a head knows them, the ranges that nobody can read any more."""
    listed = evidence.listed.get(name)
    known = [
        Problem(kind="unreadable", producer=producer, first=part.first, last=part.last, file=name)
        for producer, ranges in (listed.coverage if listed else {}).items()
        for part in ranges
    ]
    evidence.problems.extend(known or [Problem(kind="unreadable", file=name)])


def _row_problems(rows: pa.Table, coverage: Coverage, name: str) -> Iterator[Problem]:
    """Compare one file's rows with its own coverage."""
    made = pc.binary_join_element_wise(
        rows["producer"], rows["seq"].cast(pa.string()), rows["row"].cast(pa.string()), "-"
    )
    if len(rows) and not pc.all(pc.equal(made, rows["event_id"])).as_py():
        yield Problem(kind="unreadable", file=name)
    by_producer = _events_by_producer(rows)
    for producer in coverage.keys() | by_producer.keys():
        seqs, repeated, holed = by_producer.get(producer, (np.empty(0, np.int64), [], []))
        for seq in repeated:
            yield _problem("duplicate", producer, (seq, seq), name)
        for seq in holed:
            yield _problem("gap", producer, (seq, seq), name)
        inside = np.zeros(len(seqs), dtype=bool)
        for part in coverage.get(producer, []):
            here = (seqs >= part.first) & (seqs <= part.last)
            inside |= here
            if here.sum() < part.written:
                yield _problem("gap", producer, (part.first, part.last), name)
            elif here.sum() > part.written:
                yield _problem("duplicate", producer, (part.first, part.last), name)
        outside = seqs[~inside]
        if len(outside):
            yield _problem("duplicate", producer, (int(outside[0]), int(outside[-1])), name)


def _events_by_producer(rows: pa.Table) -> dict[str, tuple[np.ndarray, list[int], list[int]]]:
    """Return per producer its distinct numbers, sorted, those with a row twice, those without one.

    An event's last row can be missed only by the file's row count.
    """
    found = {}
    for producer in pc.unique(rows["producer"]).to_pylist():
        own = rows.filter(pc.equal(rows["producer"], producer))
        seq = own["seq"].to_numpy()
        row = own["row"].to_numpy()
        order = np.lexsort((row, seq))
        seq, row = seq[order], row[order]
        twice = np.concatenate(([False], (np.diff(seq) == 0) & (np.diff(row) == 0)))
        repeated = np.unique(seq[twice]).tolist()
        seq, row = seq[~twice], row[~twice]
        distinct, starts, counts = np.unique(seq, return_index=True, return_counts=True)
        place = np.arange(len(seq)) - np.repeat(starts, counts)
        found[producer] = (distinct, repeated, np.unique(seq[row != place]).tolist())
    return found


def _contradictions(listed: Coverage, coverage: Coverage, name: str) -> Iterator[Problem]:
    """Compare what a head lists for a file with what the file says about itself.

    Numbers that the head alone has are left to ``_range_problems``, where another file may have
    them; here are those that the file alone has, and ranges whose events met another fate.
    """
    for producer, ranges in coverage.items():
        known = Intervals((part.first, part.last) for part in listed.get(producer, []))
        extra = [hole for part in ranges for hole in known.missing(part.first, part.last)]
        for numbers in extra:
            yield _problem("duplicate", producer, numbers, name)
        told = {(part.first, part.last): part for part in listed.get(producer, [])}
        for part in ranges:
            other = told.get((part.first, part.last))
            if other is not None and part != other:
                kind: ProblemKind = "duplicate" if part.written > other.written else "gap"
                yield _problem(kind, producer, (part.first, part.last), name)


def _count_problems(told: set[int], rows: int, coverage: Coverage, name: str) -> Iterator[Problem]:
    """Compare the number of rows with what metadata and head say; name the range if it is one."""
    if told == {rows}:
        return
    kind: ProblemKind = "gap" if rows < max(told) else "duplicate"
    ranges = [(producer, part) for producer, parts in coverage.items() for part in parts]
    if len(ranges) == 1:
        ((producer, part),) = ranges
        yield _problem(kind, producer, (part.first, part.last), name)
    else:
        yield Problem(kind=kind, file=name)


def _judge(evidence: _Evidence) -> Verdict:
    problems = list(evidence.problems)
    unreadable = {p.file for p in problems if p.kind == "unreadable"}
    listed: dict[str, list[tuple[int, int, str]]] = {}
    for name, entry in evidence.listed.items():
        for producer, ranges in entry.coverage.items():
            listed.setdefault(producer, []).extend((r.first, r.last, name) for r in ranges)
    for producer in sorted(evidence.covered.keys() | listed.keys()):
        parts = evidence.covered.get(producer, [])
        problems.extend(_range_problems(producer, parts, listed.get(producer, []), unreadable))
    total = evidence.total
    return Verdict(
        ok=not problems,
        producers=len(evidence.covered.keys() | listed.keys()),
        received=total.settled,
        written=total.written,
        sampled_out=total.sampled_out,
        dropped=dict(sorted(total.dropped.items())),
        problems=tuple(problems),
    )


def _range_problems(
    producer: str,
    parts: list[tuple[Covered, str]],
    listed: list[tuple[int, int, str]],
    unreadable: set[str],
) -> Iterator[Problem]:
    """Yield a producer's overlaps, what heads list and no file covers, and every other hole."""
    seen = Intervals()
    for part, name in sorted(parts, key=lambda p: (p[0].first, p[1])):
        for first, last in seen.common(part.first, part.last):
            yield _problem("overlap", producer, (first, last), name)
        if part.received != part.last - part.first + 1 or part.received != _told(part):
            yield _problem("gap", producer, (part.first, part.last), name)
        seen.add(part.first, part.last)
    for first, last, name in sorted(listed):
        for low, high in seen.missing(first, last):
            if name not in unreadable:
                yield _problem("gap", producer, (low, high), name)
            seen.add(low, high)
    highest = max((last for _, last in seen), default=0)
    for low, high in seen.missing(1, highest):
        yield _problem("gap", producer, (low, high), "")


def _told(part: Covered) -> int:
    return part.written + part.sampled_out + sum(part.dropped.values())


def _problem(kind: ProblemKind, producer: str, numbers: tuple[int, int], file: str) -> Problem:
    return Problem(kind=kind, producer=producer, first=numbers[0], last=numbers[1], file=file)


def _relative(path: str, root: str) -> str:
    return path.removeprefix(root).lstrip("/")
