"""What the agents know, over HTTP: Prometheus metrics and the ledger."""

from http import HTTPStatus
from typing import Any, Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from monitoring.agent.fleet import AgentCounts, merge
from monitoring.agent.metrics import exposition
from serve_app.agents import Agents, AgentsUnavailableError
from serve_app.http.asgi import Request, Response, Route
from serve_app.http.problems import Problem

TEXT: Final = (b"content-type", CONTENT_TYPE_LATEST.encode())


def monitor_routes(agents: Agents) -> dict[str, dict[str, Route]]:
    """Routes that ask the agents; 503 with ``Retry-After`` while one of them is away."""

    async def ask(method: str) -> list[Any]:
        try:
            return await agents.call_all(method)
        except AgentsUnavailableError as exc:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "agent-away", str(exc), retry_after_s=3
            ) from exc

    async def metrics(_: Request) -> Response:
        parts = [msgspec.msgpack.decode(part, type=AgentCounts) for part in await ask("counts")]
        return Response(exposition(merge(parts)), headers=(TEXT,))

    async def ledger(_: Request) -> Response:
        return Response(msgspec.json.encode({"shards": await ask("ledger")}))

    return {"/metrics": {"GET": metrics}, "/monitor/api/ledger": {"GET": ledger}}
