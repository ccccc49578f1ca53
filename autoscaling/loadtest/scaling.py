"""What the server's autoscaler decided meanwhile, read from its API once a second."""

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec

POLL_EVERY_S: Final = 1.0
POLL_TIMEOUT_S: Final = 2.0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """``target`` replicas wanted and ``running`` at ``ts`` in Unix seconds, and why.

    ``mean_service_ms`` and ``service_cv`` are the work of a request as measured then, None until
    it is known.
    """

    ts: float
    target: int
    running: int
    reason: str = ""
    mean_service_ms: float | None = None
    service_cv: float | None = None


class DecisionPage(msgspec.Struct, frozen=True):
    """The API's answer; what else it holds is left aside."""

    decisions: tuple[Decision, ...]


class ScalingHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions in the order of their time; when there are none, ``note`` says why."""

    decisions: tuple[Decision, ...] = ()
    note: str | None = None


class ScalingWatch:
    """Collects decisions until cancelled. A server without the API is asked only once."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._decisions: dict[tuple[float, int], Decision] = {}
        self._note: str | None = "it was never asked"

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=POLL_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while await self._poll(session):
                await asyncio.sleep(POLL_EVERY_S)

    def history(self, since_s: float) -> ScalingHistory:
        """Decisions since ``since_s`` (Unix time), and the last one before it."""
        ordered = sorted(self._decisions.values(), key=lambda decision: decision.ts)
        return ScalingHistory(decisions=tuple(_since(ordered, since_s)), note=self._note)

    async def _poll(self, session: aiohttp.ClientSession) -> bool:
        """Ask once; False when asking again is pointless."""
        try:
            async with session.get(self._url) as response:
                body = await response.read()
                status = response.status
        except (TimeoutError, aiohttp.ClientError, OSError) as exc:
            self._note = f"{self._url}: {type(exc).__name__}"  # under load; the next may succeed
            return True
        if status != 200:
            self._note = f"{self._url} answered {status}"
            return status >= 500
        try:
            page = msgspec.json.decode(body, type=DecisionPage)
        except msgspec.DecodeError as exc:
            self._note = f"{self._url}: {exc}"
            return False
        self._note = None if page.decisions else f"{self._url} lists no decisions"
        self._decisions.update({(d.ts, d.target): d for d in page.decisions})
        return True


def _since(ordered: Sequence[Decision], since_s: float) -> list[Decision]:
    before = [decision for decision in ordered if decision.ts < since_s]
    return before[-1:] + [decision for decision in ordered if decision.ts >= since_s]
