"""Routes that ask the agents, with agents that answer by script."""

import msgspec
import pytest

from monitoring.agent.fleet import AgentCounts
from serve_app.agents import AgentsUnavailableError
from serve_app.http.monitor import monitor_routes
from serve_app.http.problems import Problem
from serve_app.router import TrafficState

TRAFFIC = TrafficState("1.0.0", ("1.0.0", "2"), "session", {"1.0.0": 0.8, "2": 0.2}, {}, (), ())
WELL = {"shard": "0", "ok": True, "warnings": ["the spool is full"]}


class FakeAgents:
    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def call_each(self, method):
        self.asked.append(method)
        return self.answers

    async def call_all(self, method):
        for answer in await self.call_each(method):
            if isinstance(answer, Exception):
                raise answer
        return self.answers


async def get(path, *answers):
    agents = FakeAgents(*answers)
    routes = monitor_routes(agents, lambda: None, lambda: ["journal unwritable"], lambda: TRAFFIC)
    response = await routes[path]["GET"](None)
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
