"""Send a plan over HTTP: open loop, each request on time whatever became of those before it.

Latency is counted from the planned time (Gil Tene's "coordinated omission" is what happens when it
is counted from the actual sending): a stalled server, a full connection pool and a late generator
all show in it, and the generator's own part is recorded beside it.
"""

import asyncio
import gc
import math
import time
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.payload import BytesPayload
from yarl import URL

from autoscaling.errors import in_words
from autoscaling.loadtest.errors import TargetInvalid, TargetUnreachable
from autoscaling.loadtest.plan import Plan
from autoscaling.loadtest.recording import Outcome, Recording
from autoscaling.loadtest.timer import Timer, open_timer

REQUEST_ID: Final = "X-Request-ID"
# Due requests started before answers are looked at again.
MAX_BATCH: Final = 16
# Time to set up before the first planned request.
HEAD_START_S: Final = 0.05
# A stop is noticed within this time.
MAX_WAIT_S: Final = 0.25
# Below the 5 s after which uvicorn closes an idle connection: reusing one as it closes would count
# as a failed request, and a POST must not be sent again unasked.
KEEP_ALIVE_S: Final = 4.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the requests go, and over how many connections at most."""

    url: str
    connections: int = 512
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TargetInvalid(f"--url {self.url!r}: http://host:port/path is needed")
        if self.connections < 1:
            raise TargetInvalid(f"--connections {self.connections}: at least 1 is needed")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise TargetInvalid(f"--timeout {self.timeout_s:g}: seconds above 0 are needed")


async def require_listener(target: Target) -> None:
    """Connect once and send nothing; TargetUnreachable, with the reason, where nobody listens."""
    parts = urlsplit(target.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(target.timeout_s):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except TimeoutError as exc:
        reason = f"no connection within {target.timeout_s:g} s"
        raise TargetUnreachable(f"nothing answered at {target.url}: {reason}") from exc
    except OSError as exc:
        refused = isinstance(exc, ConnectionRefusedError) or "Connect call failed" in str(exc)
        reason = "connection refused" if refused else in_words(exc)
        raise TargetUnreachable(
            f"nothing answered at {target.url}: {reason}; is it running?"
        ) from exc
    writer.close()


class Generator:
    """Sends one plan once. ``recording`` may be read at any time while it does."""

    def __init__(
        self, plan: Plan, bodies: Sequence[Sequence[bytes]], target: Target, *, prefix: str
    ) -> None:
        """``bodies[k]`` are the encoded bodies of kind ``k``, sent in turn.

        Request ``i`` carries ``X-Request-ID: <prefix>-<i>``, seven digits at least.
        """
        self.recording = Recording.empty(plan, prefix)
        self._target = target
        self._url = URL(target.url)
        self._payloads = [[_payload(body) for body in of_kind] for of_kind in bodies]
        self._turn = [0] * len(bodies)
        self._origin_s = 0.0

    async def run(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Send everything and wait for every answer; when ``stopped``, send no more.

        What was sent is waited for in any case, at most the target's timeout.
        """
        recording = self.recording
        timer = open_timer()
        gc.collect()
        gc.freeze()  # the plan and the bodies need no looking through during the run
        try:
            async with self._open_session() as session:
                self._origin_s = time.monotonic() + HEAD_START_S
                recording.started_at_s = time.time() + HEAD_START_S
                cpu_s = time.thread_time()
                await self._send_all(session, timer, stopped)
                recording.wall_s = time.monotonic() - self._origin_s
                recording.cpu_s = time.thread_time() - cpu_s
        finally:
            gc.unfreeze()
            timer.close()

    def _open_session(self) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(self._on_sent)
        trace.on_connection_queued_start.append(self._on_queued)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._target.connections, keepalive_timeout=KEEP_ALIVE_S
            ),
            timeout=aiohttp.ClientTimeout(total=self._target.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[trace],
        )

    async def _send_all(
        self, session: aiohttp.ClientSession, timer: Timer, stopped: Callable[[], bool]
    ) -> None:
        due_s = (self.recording.plan.at_s + self._origin_s).tolist()
        following, total = 0, len(due_s)
        async with asyncio.TaskGroup() as tasks:
            while following < total and not stopped():
                now_s = time.monotonic()
                if due_s[following] > now_s:
                    await timer.until(min(due_s[following], now_s + MAX_WAIT_S))
                    continue
                for index in range(following, min(following + MAX_BATCH, total)):
                    if due_s[index] > now_s:
                        break
                    tasks.create_task(self._send(session, index))
                    following = index + 1
                await asyncio.sleep(0)

    async def _send(self, session: aiohttp.ClientSession, index: int) -> None:
        recording = self.recording
        recording.begun_s[index] = time.monotonic() - self._origin_s
        request_id = recording.request_id(index)
        try:
            async with session.post(
                self._url,
                data=self._next_payload(int(recording.plan.kind[index])),
                headers={REQUEST_ID: request_id},
                allow_redirects=False,
                trace_request_ctx=index,
            ) as response:
                await response.read()
        except TimeoutError:  # before the others: aiohttp's timeouts are connection errors as well
            outcome = Outcome.TIMED_OUT
        except (aiohttp.ClientError, OSError) as exc:
            outcome = Outcome.FAILED
            recording.failures[type(exc).__name__] += 1
        else:
            outcome = Outcome.ANSWERED
            recording.status[index] = response.status
            recording.mismatched[index] = response.headers.get(REQUEST_ID, request_id) != request_id
        recording.done_s[index] = time.monotonic() - self._origin_s
        recording.outcome[index] = outcome

    def _next_payload(self, kind: int) -> BytesPayload:
        payloads, turn = self._payloads[kind], self._turn[kind]
        self._turn[kind] = turn + 1
        return payloads[turn % len(payloads)]

    async def _on_sent(
        self,
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _sent: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        index = context.trace_request_ctx
        self.recording.sent_s[index] = time.monotonic() - self._origin_s

    async def _on_queued(
        self,
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _queued: aiohttp.TraceConnectionQueuedStartParams,
    ) -> None:
        self.recording.queued[context.trace_request_ctx] = True


def _payload(body: bytes) -> BytesPayload:
    with warnings.catch_warnings():
        # aiohttp warns of bodies above 1 MB; a body this size is what the load is meant to be.
        warnings.simplefilter("ignore", ResourceWarning)
        return BytesPayload(body, content_type="application/json")
