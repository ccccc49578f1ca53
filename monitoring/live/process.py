"""The process beside an agent that counts its spool. ``python -m monitoring.live.process``.

Standard input brings the settings, then calls (``wire``). One thread counts, another shows; each
has a connection of its own to the store. All of it may die at any moment.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final, assert_never

import msgspec

from monitoring.agent.logs import log_as_json
from monitoring.agent.settings import AgentSettings, LiveSettings
from monitoring.lean import without_pandas
from monitoring.live.alerting import Alerting
from monitoring.live.alerts import Alert
from monitoring.live.capture_health import note_health
from monitoring.live.checking import check_window
from monitoring.live.counting import Counting
from monitoring.live.expectations import Expectations, read_expectation
from monitoring.live.judging import Judging, try_to_be_judge
from monitoring.live.outcome_tables import fates
from monitoring.live.showing import drift_view, feedback_view, stream_view, window_views
from monitoring.live.store import Store
from monitoring.live.views import LiveView
from monitoring.live.webhook import post
from monitoring.live.wire import Answer, Call, Question, Segments, read_frame, write_frame

log = logging.getLogger(__name__)

NICER: Final = 10  # a tenth of a busy core is plenty for it, and serving keeps the rest
FORGET_EVERY_S: Final = 60.0
JUDGE_EVERY_S: Final = 2.0


def store_path(state_dir: str) -> Path:
    return Path(state_dir) / "live" / "live.sqlite"


class Live:
    """What the process knows; counting and showing belong to one thread each."""

    def __init__(self, settings: AgentSettings, clock: Callable[[], float] = time.time) -> None:
        live = settings.live or LiveSettings()
        self._settings = live
        self._shard = settings.shard
        self._path = store_path(settings.state_dir)
        self._clock = clock
        masked = frozenset(live.changed_by_masking)
        self._expectations = Expectations(
            lambda model, version: read_expectation(live.models, model, version, masked), clock
        )
        self._counting: Counting | None = None
        self._shown: Store | None = None
        self._counted_at_s = 0.0
        self._forget_at_s = 0.0

    def open_store(self) -> Store:
        return Store(self._path, self._settings.drift_window_s)

    def _ready(self) -> Counting:
        if self._counting is None:
            self._counting = Counting(
                self.open_store(),
                self._expectations,
                self._clock,
                remember=self._settings.feedback_requests > 0,
            )
        return self._counting

    def count(self, body: bytes) -> bytes:
        """Count everything that the spool held when it was asked; return how many rows."""
        asked, now_s = msgspec.msgpack.decode(body, type=Segments), self._clock()
        segments = _segments(asked)
        counting = self._ready()
        note_health(counting.store, self._shard, asked.health, now_s)
        rows = counting.count(segments)
        self._counted_at_s = now_s
        if now_s >= self._forget_at_s:
            self._forget_at_s = now_s + FORGET_EVERY_S
            counting.store.note_caught_up(self._shard, now_s)
            counting.forget(segments)
        return msgspec.msgpack.encode(rows)

    def finish(self, body: bytes) -> bytes:
        """Count one segment to its end, whatever else there is."""
        self._ready().count(_segments(msgspec.msgpack.decode(body, type=Segments)))
        return b""

    def show(self, body: bytes) -> bytes:
        if self._shown is None:
            self._shown = self.open_store()
        question = msgspec.msgpack.decode(body, type=Question)
        return msgspec.msgpack.encode(self._view(self._shown, question))

    def _view(self, store: Store, question: Question) -> LiveView:
        view = LiveView(store=store.identity, counted_at_s=self._counted_at_s)
        if question.what in ("alerts", "summary"):
            view.alerts = list(Alerting(store, self._clock).known().values())
        if question.what in ("feedback", "summary"):
            view.fates = fates(store.connection)
        for key in store.streams():
            other_model = question.model not in (None, key.model)
            if other_model or question.version not in (None, key.version):
                continue
            expected = self._expectations.known(key.model, key.version)
            match question.what:
                case "windows":
                    view.streams.append(stream_view(store, key, expected))
                    view.windows += window_views(store, key, expected, question)
                case "quality":
                    view.quality.append(
                        check_window(
                            store,
                            key,
                            expected,
                            self._settings,
                            known=Alerting(store, self._clock).known(),
                            now_s=self._clock(),
                        )
                    )
                case "feedback":
                    view.feedback.append(
                        feedback_view(store, key, expected, self._settings, question)
                    )
                case "drift":
                    view.drift.append(drift_view(store, key, expected, self._settings, question))
                case "alerts":
                    pass  # they are not kept by stream
                case "summary":
                    view.streams.append(stream_view(store, key, expected))
                    view.drift.append(drift_view(store, key, expected, self._settings, None))
                    view.feedback.append(feedback_view(store, key, expected, self._settings, None))
                case _:
                    assert_never(question.what)
        return view

    def judge_for_ever(self) -> None:
        """Judge closed windows and tell of alerts, once no other process of this folder does."""
        folder = self._path.parent
        lock: int | None = None
        judge: Callable[[], None] | None = None
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                lock = try_to_be_judge(folder) if lock is None else lock
                if lock is not None:
                    judge = judge or self._judge()
                    judge()
            except Exception:  # the thread must live; the windows are judged next time
                log.exception("judging failed")
            time.sleep(JUDGE_EVERY_S)

    def _judge(self) -> Callable[[], None]:
        store = self.open_store()
        judging = Judging(store, self._expectations, self._settings, self._clock)
        alerting = Alerting(store, self._clock, self._sender(), self._settings.public_url)

        def judge() -> None:
            for step in (
                judging.judge_due,
                judging.join_feedback,
                lambda: alerting.update(judging.causes(alerting.known())),
                alerting.deliver,
            ):
                try:
                    step()
                except Exception:  # one of them may fail; all are tried again
                    log.exception("judging failed")

        return judge

    def _sender(self) -> Callable[[Alert], None] | None:
        url = self._settings.webhook_url
        return None if url is None else lambda alert: post(url, alert)


def _segments(asked: Segments) -> list[tuple[Path, int]]:
    return [(Path(path), size) for path, size in asked.places]


def serve(live: Live, calls: IO[bytes], answers: IO[bytes]) -> None:
    """Answer calls until their stream ends."""
    mutex = threading.Lock()
    counting, showing = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    threads = {"count": counting, "finish": counting, "show": showing}

    def work(call: Call) -> None:
        try:
            answer = Answer(call.number, getattr(live, call.method)(call.body))
        except Exception as error:  # the agent is told, and asks again
            log.exception("`%s` failed", call.method)
            answer = Answer(call.number, b"", f"{type(error).__name__}: {error}")
        with mutex:
            write_frame(answers, answer)

    while (call := read_frame(calls, Call)) is not None:
        threads[call.method].submit(work, call)


def main() -> None:
    log_as_json()
    os.nice(NICER)
    without_pandas()
    calls, answers = sys.stdin.buffer, sys.stdout.buffer
    first = read_frame(calls, bytes)
    if first is None:
        return
    live = Live(msgspec.msgpack.decode(first, type=AgentSettings))
    threading.Thread(target=live.judge_for_ever, name="treeline-judge", daemon=True).start()
    serve(live, calls, answers)
    os._exit(0)  # whatever a thread is doing is either committed or not


if __name__ == "__main__":
    main()
