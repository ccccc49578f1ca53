"""Routes that ask the agents, with agents that answer by script."""

import msgspec
import pytest

from monitoring.agent.fleet import AgentCounts
from monitoring.live.degrading import Standing, rate_of
from monitoring.live.outcomes import moments_of
from monitoring.live.views import DriftView, FeedbackView, LiveView, OutcomeWindow, StreamView
from serve_app.agents import AgentsUnavailableError
from serve_app.http.asgi import Request
from serve_app.http.monitor import monitor_routes
from serve_app.http.problems import Problem
from serve_app.router import TrafficState

TRAFFIC = TrafficState("1.0.0", ("1.0.0", "2"), "session", {"1.0.0": 0.8, "2": 0.2}, {}, (), ())
WELL = {"shard": "0", "ok": True, "warnings": ["the spool is full"]}


class FakeAgents:
    def __init__(self, *answers, live=()):
        self.answers = list(answers)
        self.live = list(live)
        self.asked = []

    async def call_each(self, method):
        self.asked.append(method)
        return self.answers

    async def call_all(self, method, *_args):
        if method == "live":
            return self.live
        for answer in await self.call_each(method):
            if isinstance(answer, Exception):
                raise answer
        return self.answers


async def get(path, *answers, query=b"", live=()):
    agents = FakeAgents(*answers, live=live)
    routes = monitor_routes(agents, lambda: None, lambda: ["journal unwritable"], lambda: TRAFFIC)
    request = Request(path=path, query=query, body=b"", request_id="r", started_s=0.0)
    response = await routes[path]["GET"](request)
    return agents, response


async def health(*answers):
    _, response = await get("/monitor/api/health", *answers)
    return msgspec.json.decode(response.body)


async def test_health_joins_what_the_agents_say():
    other = {"shard": "1", "ok": True, "warnings": []}
    answer = await health(WELL, other)
    assert answer == {"ok": True, "warnings": ["the spool is full"], "shards": [WELL, other]}
    assert not (await health({**WELL, "ok": False}))["ok"]


async def test_health_is_told_while_an_agent_is_away_too():
    answer = await health(WELL, AgentsUnavailableError("monitoring-agent-1 did not answer"))
    assert not answer["ok"]
    assert answer["shards"] == [WELL]
    assert answer["warnings"] == [
        "monitoring-agent-1 did not answer",
        "journal unwritable",
        "the spool is full",
    ]


async def test_metrics_and_ledger_need_every_agent():
    for path in ("/metrics", "/monitor/api/ledger"):
        with pytest.raises(Problem) as refused:
            await get(path, AgentsUnavailableError("away"))
        assert refused.value.status == 503


async def test_the_ledger_is_told_by_shard_producer_and_reason_and_in_total():
    one = {"written": 6, "sampled_out": 1, "dropped": {"torn": 1}, "pending": 2, "received": 10}
    none = {"written": 0, "sampled_out": 0, "dropped": {}, "pending": 0, "received": 0}
    shards = [
        {"shard": "0", "producers": {"p1": one, "p2": one}, "retired": none},
        {"shard": "1", "producers": {}, "retired": {**one, "dropped": {"rejected": 1}}},
    ]
    _, response = await get("/monitor/api/ledger", *shards)
    answer = msgspec.json.decode(response.body)
    assert answer["shards"] == shards
    assert answer["total"] == {
        "received": 30,
        "written": 18,
        "sampled_out": 3,
        "dropped": {"torn": 2, "rejected": 1},
        "pending": 6,
    }


async def test_metrics_add_up():
    parts = [msgspec.msgpack.encode(AgentCounts(deliveries=n)) for n in (2, 3)]
    _, response = await get("/metrics", *parts)
    assert b"treeline_agent_deliveries_total 5.0" in response.body


async def test_the_split_is_told_as_json_and_as_metrics():
    _, response = await get("/monitor/api/traffic")
    answer = msgspec.json.decode(response.body)
    assert answer["shares"] == {"1.0.0": 0.8, "2": 0.2}
    assert answer["versions"] == ["1.0.0", "2"]
    _, response = await get("/metrics")
    assert b'treeline_traffic_share_ratio{version="2"} 0.2' in response.body


def live_view(store="a", **changes):
    drift = DriftView("m", "1", "champion", 2.0, 720.0, None, 60.0, 60, None, [b'{"rows":3}'])
    stream = StreamView("m", "1", "champion", 2, 3, 0, 0, None)
    view = LiveView(store=store, counted_at_s=9.0, streams=[stream], drift=[drift])
    return msgspec.msgpack.encode(msgspec.structs.replace(view, **changes))


async def test_drift_is_told_with_its_verdicts_and_once_for_agents_on_one_folder():
    _, response = await get("/monitor/api/drift", live=[live_view(), live_view()])
    answer = msgspec.json.decode(response.body)
    assert (answer["alarm"], len(answer["streams"])) == (False, 1)
    assert answer["streams"][0]["windows"] == [{"rows": 3}]
    parts = [msgspec.msgpack.encode(AgentCounts())]
    _, response = await get("/metrics", *parts, live=[live_view()])
    labels = b'{model="m",variant="champion",version="1"}'
    assert b"treeline_drift_alarm" + labels + b" 0.0" in response.body
    assert b"treeline_live_events_total" + labels + b" 2.0" in response.body


async def test_feedback_is_told_by_version_with_what_became_of_it():
    sums = moments_of(0, 1)
    judged = Standing("accuracy", 0, rate_of("accuracy", sums), 0.9, degraded=True)
    window = OutcomeWindow(60, "accuracy", sums)
    part = FeedbackView("m", "1", "champion", [judged], [window])
    live = [live_view(feedback=[part], fates={"m": {"used": 1, "waiting": 2}})]
    _, response = await get("/monitor/api/feedback", query=b"step=day&model=m", live=live)
    answer = msgspec.json.decode(response.body)
    assert answer["feedback"] == {"m": {"used": 1, "waiting": 2}}
    (stream,) = answer["streams"]
    assert stream["needs_retraining"] is True
    assert (stream["windows"][0]["value"], stream["windows"][0]["high"] < 1.0) == (0.0, True)
    _, response = await get("/metrics", msgspec.msgpack.encode(AgentCounts()), live=live)
    assert b'treeline_feedback_live_events_total{fate="used",model="m"} 1.0' in response.body
    assert b"treeline_needs_retraining" in response.body


async def test_where_nothing_is_counted_live_there_is_nothing_to_show():
    with pytest.raises(Problem) as refused:
        await get("/monitor/api/windows", live=[None])
    assert refused.value.status == 404
