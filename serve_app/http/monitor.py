"""What agents and the scaling policy know, over HTTP: Prometheus metrics, ledger, decisions."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from monitoring.agent.fleet import AgentCounts, merge
from monitoring.agent.ledger import LiveLedger, total
from monitoring.agent.metrics import exposition
from monitoring.live.metrics import live_exposition
from monitoring.live.views import (
    LiveView,
    alerts_json,
    drift_json,
    feedback_json,
    quality_json,
    windows_json,
)
from monitoring.live.views import merged as merged_views
from monitoring.live.wire import Question, What
from serve_app.agents import Agents, AgentsUnavailableError
from serve_app.http.asgi import Request, Response, Route
from serve_app.http.problems import Problem, invalid
from serve_app.router import TrafficState
from serve_app.scaling import ScalingRecord, scaling_exposition

LIVE_JSON: Final[dict[What, Callable[[LiveView], object]]] = {
    "alerts": alerts_json,
    "quality": quality_json,
    "drift": drift_json,
    "feedback": feedback_json,
    "windows": windows_json,
}
STEPS_S: Final = {"minute": 60, "hour": 3600, "day": 86_400}
TEXT: Final = (b"content-type", CONTENT_TYPE_LATEST.encode())


def monitor_routes(
    agents: Agents,
    read_scaling: Callable[[], ScalingRecord | None],
    read_warnings: Callable[[], Sequence[str]],
    read_traffic: Callable[[], TrafficState],
) -> dict[str, dict[str, Route]]:
    """Routes that ask the agents; 503 with ``Retry-After`` while one of them is away.

    ``read_scaling`` returns what the latency policy has published, or None where it does not run;
    ``read_warnings`` what this replica would tell an agent that is away, ``read_traffic`` who gets
    which version now, which this replica knows by itself.
    """

    async def metrics(_: Request) -> Response:
        parts = [
            msgspec.msgpack.decode(part, type=AgentCounts) for part in await _ask(agents, "counts")
        ]
        text = exposition(merge(parts)) + scaling_exposition(await asyncio.to_thread(read_scaling))
        text += traffic_exposition(read_traffic())
        with suppress(Problem):  # what is counted live may be a little behind; the rest is there
            text += live_exposition(await _live(agents, Question("summary")))
        return Response(text, headers=(TEXT,))

    async def ledger(_: Request) -> Response:
        shards = msgspec.convert(await _ask(agents, "ledger"), list[LiveLedger])
        return _json({"total": total(shards), "shards": shards})

    async def health(_: Request) -> Response:
        return _json(_health(await agents.call_each("health"), read_warnings))

    async def scaling(_: Request) -> Response:
        record = await asyncio.to_thread(read_scaling)
        if record is None:
            raise Problem(
                HTTPStatus.NOT_FOUND,
                "no-scaling",
                "the latency policy does not run here; configs/autoscaling.yaml turns it on",
            )
        return _json(record)

    async def traffic(_: Request) -> Response:
        return _json(read_traffic())

    routes = {
        "/metrics": metrics,
        "/monitor/api/health": health,
        "/monitor/api/ledger": ledger,
        "/monitor/api/scaling": scaling,
        "/monitor/api/traffic": traffic,
        **{f"/monitor/api/{what}": _live_route(agents, what) for what in LIVE_JSON},
    }
    return {path: {"GET": route} for path, route in routes.items()}


def _live_route(agents: Agents, what: What) -> Route:
    """Show a view of what is counted live. Alerts take no parameters."""

    async def show(request: Request) -> Response:
        question = asked(what, b"" if what == "alerts" else request.query)
        return _json(LIVE_JSON[what](await _live(agents, question)))

    return show


async def _ask(agents: Agents, method: str, *args: object) -> list[Any]:
    try:
        return await agents.call_all(method, *args)
    except AgentsUnavailableError as exc:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "agent-away", str(exc), retry_after_s=3
        ) from exc


async def _live(agents: Agents, question: Question) -> LiveView:
    answers = await _ask(agents, "live", msgspec.to_builtins(question))
    parts = [part for part in answers if part is not None]
    if not parts:
        raise Problem(
            HTTPStatus.NOT_FOUND, "not-live", "`live.enabled` is false: nothing is counted live"
        )
    return merged_views(msgspec.msgpack.decode(part, type=LiveView) for part in parts)


def _health(answers: Sequence[Any], read_warnings: Callable[[], Sequence[str]]) -> dict[str, Any]:
    """Join what agents answered. One that is away is a warning: the rest is told all the same."""
    away = [str(answer) for answer in answers if isinstance(answer, AgentsUnavailableError)]
    shards = [answer for answer in answers if not isinstance(answer, AgentsUnavailableError)]
    own = read_warnings() if away else ()
    return {
        "ok": not away and all(shard["ok"] for shard in shards),
        "warnings": [*away, *own, *(line for shard in shards for line in shard["warnings"])],
        "shards": shards,
    }


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body))


def traffic_exposition(state: TrafficState) -> bytes:
    """The intended shares as Prometheus text."""
    registry = CollectorRegistry()
    for name, meaning, shares in (
        ("treeline_traffic_share_ratio", "Share of traffic a version is to answer.", state.shares),
        ("treeline_shadow_share_ratio", "Share of requests it gets a copy of.", state.shadows),
    ):
        gauge = Gauge(name, meaning, ["version"], registry=registry)
        for version, share in shares.items():
            gauge.labels(version).set(share)
    text: bytes = generate_latest(registry)
    return text


def asked(what: What, query: bytes) -> Question:
    """Read ``model``, ``version``, ``step`` (minute, hour, day or seconds), ``from`` and ``to``.

    Moments are RFC 3339 or seconds since 1970; a moment without a zone is UTC.
    """
    given = dict(parse_qsl(query.decode("latin-1")))
    unknown = sorted(given.keys() - {"model", "version", "step", "from", "to"})
    if unknown:
        raise invalid(f"unknown parameter {unknown[0]!r}; allowed: model, version, step, from, to")
    step = given.get("step", "minute")
    level_s = STEPS_S.get(step) or (int(step) if step.isdecimal() else None)
    if level_s is None:
        raise invalid(f"step is {step!r}; allowed: {', '.join(STEPS_S)}, or whole seconds")
    return Question(
        what,
        level_s=level_s,
        start_s=_moment("from", given.get("from")),
        end_s=_moment("to", given.get("to")),
        model=given.get("model"),
        version=given.get("version"),
    )


def _moment(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    with suppress(ValueError):
        return float(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise invalid(f"{name} is {text!r}; allowed: as 2026-09-21T14:00Z, or seconds") from exc
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
