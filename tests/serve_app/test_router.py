"""Which version answers, which log has it, and who gets a copy."""

from dataclasses import dataclass, field

import pytest

from serve_app.prediction import PredictionFailedError
from serve_app.router import Further, Router, projection
from serve_app.schema import Context, PredictRequest, RequestInvalidError
from serve_app.shadow import Shadow
from serve_app.traffic_settings import Traffic, TrafficUnfit
from tests.serve_app.conftest import RememberingRecorder, predictor_of


@dataclass
class Replica:
    """A champion 1.0.0 beside 2.0.0 and 3.0.0, with one log for each role of each."""

    now_s: float = 0.0
    logs: dict[tuple[str, str], RememberingRecorder] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.champion = predictor_of(self.log("1.0.0", "champion"))
        self.further = {version: self._further(version) for version in ("2.0.0", "3.0.0")}
        self.router = Router(self.champion, self.further, lambda: self.now_s)

    def log(self, version: str, role: str) -> RememberingRecorder:
        return self.logs.setdefault((version, role), RememberingRecorder())

    def _further(self, version: str) -> Further:
        shadowing = predictor_of(
            self.log(version, "shadow"), version=version, role="shadow", inline_rows=0
        )
        admission = self.champion.admission
        return Further(
            challenger=predictor_of(
                self.log(version, "challenger"), version=version, role="challenger"
            ),
            shadow=Shadow(shadowing, project=projection(None), busy=admission, max_rows=10_000),
            project=projection(None),
        )

    async def ask(self, request_id: str, *, session: str | None = None, first: float = 1.0) -> str:
        request = PredictRequest([(first, None)], None, Context(session_id=session))
        answer = await self.router.answer(request, request_id, started_s=0.0)
        return answer.version

    async def shadowed(self, version: str) -> list[str]:
        """Request ids in a shadow's log, once it has scored all that it was offered."""
        shadow = self.further[version].shadow
        shadow.start()
        await shadow.stop(5.0)
        return [event["request_id"] for event in self.log(version, "shadow").events]


@pytest.fixture
def replica() -> Replica:
    return Replica()


async def test_the_champion_answers_until_told_otherwise(replica: Replica) -> None:
    assert {await replica.ask(f"r{n}", session=f"s{n}") for n in range(50)} == {"1.0.0"}
    assert replica.router.state.shares == {"1.0.0": 1.0}
    assert await replica.shadowed("2.0.0") == []


async def test_a_session_stays_and_its_version_is_logged(replica: Replica) -> None:
    replica.router.apply(Traffic(shares={"2.0.0": 0.5}))
    first = {s: await replica.ask(f"a{s}", session=f"s{s}") for s in range(100)}
    again = {s: await replica.ask(f"b{s}", session=f"s{s}") for s in range(100)}
    assert first == again
    assert set(first.values()) == {"1.0.0", "2.0.0"}
    challenged = [s for s, version in first.items() if version == "2.0.0"]
    logged = [event["request_id"] for event in replica.log("2.0.0", "challenger").events]
    assert sorted(logged) == sorted([f"{x}{s}" for x in "ab" for s in challenged])
    assert len(replica.log("1.0.0", "champion").events) == 200 - len(logged)


async def test_a_canary_grows_when_the_clock_says_so(replica: Replica) -> None:
    steps = [{"share": 0.0, "hold_s": 10}, {"share": 1.0}]
    canary = {"version": "3.0.0", "start": "1970-01-01T00:00:00Z", "steps": steps}
    replica.router.apply(Traffic.model_validate({"canary": canary}))
    assert await replica.ask("r") == "1.0.0"
    assert replica.router.follow_clock() is False
    replica.now_s = 10.0
    assert replica.router.follow_clock() is True
    assert [(c.ts.timestamp(), c.reason, c.shares) for c in replica.router.state.changes] == [
        (0.0, "user_config", {"1.0.0": 1.0}),
        (0.0, "user_config", {"1.0.0": 1.0, "3.0.0": 0.0}),
        (10.0, "canary step", {"1.0.0": 0.0, "3.0.0": 1.0}),
    ]
    assert await replica.ask("r") == "3.0.0"


CANARY = {"version": "2.0.0", "start": "1970-01-01T00:00:00Z", "steps": [{"share": 0.3}]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"shares": {"2.0.0": 0.3, "3.0.0": 0.3}}, {"shares": {"3.0.0": 0.3, "2.0.0": 0.3}}),
        ({"shares": {"2.0.0": 0.3}}, {"canary": CANARY}),
        ({"canary": CANARY}, {"shares": {"2.0.0": 0.3}}),
    ],
)
async def test_a_running_replica_splits_as_one_that_starts_now(
    before: dict[str, object], after: dict[str, object]
) -> None:
    running, started = Replica(), Replica()
    running.router.apply(Traffic.model_validate(before))
    for each in (running, started):
        each.router.apply(Traffic.model_validate(after))
    for n in range(200):
        assert await running.ask(f"r{n}") == await started.ask(f"r{n}")


async def test_unloaded_versions_are_refused_and_nothing_changes(replica: Replica) -> None:
    replica.router.apply(Traffic(shares={"2.0.0": 1.0}))
    for wrong in (
        {"shares": {"9": 0.1}},
        {"shadows": {"1.0.0": 0.1}},
        {"canary": {"version": "9", "start": "2026-01-01T00:00:00Z", "steps": [{"share": 0.1}]}},
    ):
        with pytest.raises(TrafficUnfit, match=r"version '.*'; allowed: 2\.0\.0, 3\.0\.0"):
            replica.router.apply(Traffic.model_validate(wrong))
    assert await replica.ask("r") == "2.0.0"


async def test_shadows_get_copies_under_the_same_request_id(replica: Replica) -> None:
    replica.router.apply(Traffic(shares={"2.0.0": 0.5}, shadows={"2.0.0": 1.0, "3.0.0": 0.3}))
    answered = {f"r{n}": await replica.ask(f"r{n}") for n in range(200)}
    whole = await replica.shadowed("2.0.0")
    assert whole == [r for r, version in answered.items() if version == "1.0.0"]
    part = await replica.shadowed("3.0.0")
    assert 30 <= len(part) <= 95
    assert set(part) <= set(answered)


async def test_what_failed_is_shadowed_and_what_was_refused_is_not(replica: Replica) -> None:
    replica.router.apply(Traffic(shadows={"2.0.0": 1.0}))
    with pytest.raises(PredictionFailedError):
        await replica.ask("failed", first=-1)
    with pytest.raises(RequestInvalidError):
        await replica.ask("refused", first=1e31)
    assert await replica.shadowed("2.0.0") == ["failed"]
    (event,) = replica.log("2.0.0", "shadow").events
    assert event["status"] == 500


def test_a_version_may_use_fewer_features_in_its_own_order() -> None:
    request = PredictRequest([(1, 2, 3), (4, 5, 6)], 2, Context(user_id="u"))
    projected = projection((2, 0))(request)
    assert projected == PredictRequest([(3, 1), (6, 4)], 2, Context(user_id="u"))
    assert projection(None)(request) is request
