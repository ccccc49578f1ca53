"""Take deliveries in: refuse, dedupe, sample, spool, and only then acknowledge."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from monitoring.agent.durable import replace_file
from monitoring.agent.ingest import (
    Run,
    kept_rows,
    plan_runs,
    read_delivery,
    sampled_out_rows,
)
from monitoring.agent.sampling import BudgetState, Decision, EventTable, at_second, decide
from monitoring.agent.settings import AgentSettings, SamplingSettings
from monitoring.agent.spool import Spool
from monitoring.agent.spool_frames import RowsHead
from monitoring.errors import DeliveryRejected, MonitoringError, SinkUnavailable
from monitoring.events import SAMPLED_OUT, Ack, DeliveryHeader

log = logging.getLogger(__name__)

POLICIES_FILE: Final = "policies.json"
KEEP_ALL: Final = SamplingSettings()


@dataclass(slots=True)
class IntakeCounts:
    """What was taken in during this process's life; all but ``rows`` in events."""

    deliveries: int = 0
    rejected: int = 0
    events: int = 0
    rows: int = 0
    repeated: int = 0
    sampled_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


class Intake:
    """Belongs to one thread. ``clock`` gives seconds since 1970.

    ``keep_aside`` says that somebody counts sampled-out rows too.
    """

    def __init__(
        self,
        settings: AgentSettings,
        spool: Spool,
        clock: Callable[[], float],
        *,
        keep_aside: bool = False,
    ) -> None:
        self.counts = IntakeCounts()
        self.sampling: SamplingSettings = settings.sampling
        self._max_bytes = settings.spool.max_bytes
        self._spool = spool
        self._clock = clock
        self._keep_aside = keep_aside
        self._budget = BudgetState()
        self._policy_ids = known_policies(Path(settings.state_dir), settings.policy_ids)

    def commit(self, payloads: Sequence[bytes]) -> list[Ack | MonitoringError]:
        """Store a group of deliveries with one group commit; the answers are in the same order.

        ``DeliveryRejected`` is final; ``SinkUnavailable`` (no room, bad disk) asks to send again.
        """
        answers: list[Ack | MonitoringError] = []
        try:
            self._check_room()
            with self._spool.committing():
                answers.extend(self._answer(payload) for payload in payloads)
        except (OSError, SinkUnavailable) as error:
            failure = SinkUnavailable(f"the spool takes nothing in: {error}")
            return [failure] * len(payloads)
        return answers

    def _check_room(self) -> None:
        used = self._spool.state().bytes
        if used >= self._max_bytes:
            raise SinkUnavailable(f"{used} bytes wait; spool.max_bytes is {self._max_bytes}")

    def _answer(self, payload: bytes) -> Ack | MonitoringError:
        try:
            return self._take(payload)
        except DeliveryRejected as error:
            self.counts.rejected += 1
            log.error("delivery refused: %s", error)
            return error
        except (OSError, MemoryError) as error:
            return SinkUnavailable(f"the spool cannot write: {error!r}")
        except Exception as error:  # sent again it would fail again, and its whole group with it
            self.counts.rejected += 1
            log.exception("a delivery of %d bytes cannot be taken in", len(payload))
            return DeliveryRejected(f"the delivery cannot be taken in: {error!r}")

    def _take(self, payload: bytes) -> Ack:
        header, batch, events = read_delivery(payload)
        # What another agent took in was masked as its policies said; ours may have changed since.
        if header.policy_id not in self._policy_ids and not header.decided:
            raise DeliveryRejected(
                f"producer {header.producer}: masking policy {header.policy_id!r} is unknown; "
                f"known: {sorted(self._policy_ids)}"
            )
        now_s = self._clock()
        if header.acknowledged:
            self._spool.mark_acknowledged(header.producer, header.acknowledged, now_s)
        missing = self._spool.missing(
            header.producer, header.first, header.last, now_s, held_here=header.decided
        )
        self.counts.deliveries += 1
        if missing != [(header.first, header.last)]:
            batch, events = _only(batch, events, missing)
            self.counts.repeated += header.events - len(events.seqs)
        if missing:
            self._store(header, batch, events, missing, now_s)
        return Ack(producer=header.producer, through=self._spool.through(header.producer))

    def _store(
        self,
        header: DeliveryHeader,
        batch: pa.RecordBatch,
        events: EventTable,
        missing: list[tuple[int, int]],
        now_s: float,
    ) -> None:
        decision = None if header.decided else self._decide(header, batch, events, now_s)
        for run in plan_runs(header, events, missing, int(now_s // 3600)):
            rows = kept_rows(batch, events, run, decision)
            head = _account(header, run, decision, rows.num_rows)
            aside = None
            if self._keep_aside and head.sampled_out and decision is not None:
                aside = sampled_out_rows(header.stream, batch, events, run, decision)
            self._spool.append(header.stream, run.hour, head, rows, now_s, aside)
            self._count(head)
        self.counts.rows += batch.num_rows

    def _decide(
        self, header: DeliveryHeader, batch: pa.RecordBatch, events: EventTable, now_s: float
    ) -> Decision:
        """Sample predictions; keep all feedback, whose request may have been kept by a rule."""
        if header.stream.kind == "feedback":
            return decide(batch, events, header.stream, KEEP_ALL, BudgetState())[0]
        state = at_second(self._budget, int(now_s))
        decision, self._budget = decide(batch, events, header.stream, self.sampling, state)
        return decision

    def _count(self, head: RowsHead) -> None:
        self.counts.events += head.last - head.first + 1
        self.counts.sampled_out += head.sampled_out
        for reason, count in head.dropped.items():
            self.counts.dropped[reason] = self.counts.dropped.get(reason, 0) + count


def _account(header: DeliveryHeader, run: Run, decision: Decision | None, rows: int) -> RowsHead:
    events = run.high - run.low
    dropped = dict(run.dropped)
    sampled_out = dropped.pop(SAMPLED_OUT, 0) if header.decided else 0
    written = events if decision is None else int(decision.keep[run.low : run.high].sum())
    return RowsHead(
        producer=header.producer,
        first=run.first,
        last=run.last,
        written=written,
        sampled_out=sampled_out + events - written,
        dropped=dropped,
        rows=rows,
        policy_id=header.policy_id,
        node=header.node,
        env=header.env,
        decided=header.decided,
    )


def _only(
    batch: pa.RecordBatch, events: EventTable, ranges: list[tuple[int, int]]
) -> tuple[pa.RecordBatch, EventTable]:
    """Keep the events whose numbers lie in the ranges."""
    wanted = np.zeros(len(events.seqs), dtype=bool)
    for first, last in ranges:
        wanted |= (events.seqs >= first) & (events.seqs <= last)
    counts = events.row_counts
    rows = batch.filter(pa.array(np.repeat(wanted, counts)))
    starts = np.concatenate(([0], np.cumsum(counts[wanted]))).astype(np.int64)
    return rows, EventTable(seqs=events.seqs[wanted], starts=starts, ts_us=events.ts_us[wanted])


def known_policies(state_dir: Path, configured: Sequence[str]) -> frozenset[str]:
    """Return the policies ever configured here, and remember today's.

    Journals that were written under yesterday's policy are drained after it changed; what was
    masked rightly then must not be refused now.
    """
    path = state_dir / POLICIES_FILE
    remembered: list[str] = []
    try:
        remembered = msgspec.json.decode(path.read_bytes(), type=list[str])
    except FileNotFoundError:
        pass
    except (OSError, msgspec.DecodeError) as error:  # the agent must start; today's are known
        log.error("masking policies of before cannot be read from %s: %s", path, error)
    known = frozenset(remembered) | frozenset(configured)
    if known != frozenset(remembered):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, msgspec.json.encode(sorted(known)))
        except OSError as error:  # a full disk must not keep the agent from starting
            log.error("masking policies cannot be remembered in %s: %s", path, error)
    return known
