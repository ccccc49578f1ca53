"""What the agents know, over HTTP: Prometheus metrics and the ledger."""

from http import HTTPStatus
from typing import Any

import msgspec

from monitoring.agent.metrics import CONTENT_TYPE, render_metrics
from serve_app.agents import Agents, AgentsUnavailableError
from serve_app.http.asgi import Request, Response, Route
from serve_app.http.problems import Problem


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
        text = render_metrics(await ask("counts"))
        return Response(text, headers=((b"content-type", CONTENT_TYPE.encode()),))

    async def ledger(_: Request) -> Response:
        return Response(msgspec.json.encode({"shards": await ask("ledger")}))

    return {"/metrics": {"GET": metrics}, "/monitor/api/ledger": {"GET": ledger}}
