"""A version is flagged by its feedback when it is worse, seldom else, and until it is not."""

import numpy as np
import pytest

from monitoring.agent.settings import LiveSettings
from monitoring.analysis.compare.moments import Moments, unit_moments
from monitoring.events import Stream
from monitoring.live.alerting import Alerting
from monitoring.live.alerts import Alert
from monitoring.live.degrading import Day, standing
from monitoring.live.expectations import Expectation
from monitoring.live.judging import Judging
from monitoring.live.metrics import live_exposition
from monitoring.live.rates import interval_of, rate_of
from monitoring.live.showing import feedback_view
from monitoring.live.views import LiveView, feedback_json, merged
from monitoring.live.window import StreamKey
from monitoring.live.wire import Question
from tests.monitoring.agent.conftest import STREAM, delivery
from tests.monitoring.live.feedbacks import REGRESSION, SETTINGS, Said, feedback, predictions
from tests.monitoring.live.worlds import KEY, World

TRAINED = {"test_accuracy": 0.9, "test_rows": 1_000.0}


def day_of(hits: np.ndarray) -> Day:
    return Day(start_s=0, sums=sums_of(hits))


def sums_of(hits: np.ndarray) -> Moments:
    return unit_moments(hits.astype(float), np.ones(len(hits)), np.arange(len(hits)))


def judge(hits: np.ndarray, *, alpha: float = 0.02, still_open: bool = False):
    return standing("accuracy", day_of(hits), TRAINED, alpha, still_open=still_open)


def test_a_version_as_good_as_trained_is_seldom_flagged_however_often_one_looks():
    rng = np.random.default_rng(8)
    flagged = missed = 0
    for _ in range(400):
        hits = rng.random(2_000) < 0.9
        looks = [sums_of(hits[:n]) for n in range(100, 2_001, 100)]
        flagged += any(judge(hits[:n]).degraded for n in range(100, 2_001, 100))
        missed += any(interval_of("accuracy", sums, 0.05).excludes(0.9) for sums in looks)
    assert flagged <= 8  # two-sided alpha 0.02, of which one half can flag
    assert missed <= 20


def test_a_worse_version_is_flagged_even_if_everything_is_wrong():
    rng = np.random.default_rng(9)
    assert judge(rng.random(1_000) < 0.8).degraded
    assert judge(np.zeros(100, bool)).degraded
    assert not standing(
        "accuracy", day_of(np.zeros(500, bool)), {}, 0.02, still_open=True
    ).degraded  # nothing to hold it against


def test_it_stays_flagged_until_it_is_as_good_as_trained():
    below, good = np.arange(200) % 9 > 0, np.arange(200) % 20 > 0
    assert not judge(below).degraded
    assert judge(below, still_open=True).degraded
    assert not judge(good, still_open=True).degraded


def test_a_challengers_click_rate_is_held_against_the_champions():
    rng = np.random.default_rng(10)
    champion = sums_of(rng.random(3_000) < 0.3)
    for share, worse in ((0.3, False), (0.2, True)):
        day = Day(start_s=0, sums=sums_of(rng.random(3_000) < share), champion=champion)
        judged = standing("click", day, {}, 0.02, still_open=False)
        assert (judged.degraded, judged.reference) == (worse, champion.mean)


def test_rows_of_one_request_are_not_independent():
    alone = rate_of("click", sums_of(np.arange(200) % 4 == 0))
    rows = unit_moments((np.arange(200) % 4 == 0).astype(float), np.ones(200), np.arange(200) // 4)
    together = rate_of("click", rows)
    assert (together.value, together.requests, together.rows) == (0.25, 50, 200)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, expected=Expectation(profile=None, reason="none", training=TRAINED))
    yield made
    made.die()


def tell(world: World, first: int, last: int, value: str, of: int = 1) -> None:
    world.agent.take(delivery(first, last))
    words = [Said(seq, value if seq % of == 0 else "good") for seq in range(first, last + 1)]
    world.agent.take(feedback(words, first))
    world.count()
    world.agent.now_s += 10.0


def test_an_alert_opens_links_to_the_feedback_and_is_resolved(world):
    judging = Judging(world.store, world.counting._expectations, SETTINGS, world.agent.clock)
    alerting = Alerting(world.store, world.agent.clock, public_url="https://loans.example/")

    def look() -> list[Alert]:
        judging.join_feedback()
        return alerting.update(judging.causes(alerting.known()))

    tell(world, 1, 150, "good")
    assert look() == []
    tell(world, 151, 400, "bad", of=2)
    (opened,) = look()
    assert (opened.cause, opened.state) == ("quality:credit/1.0.0/champion/accuracy", "open")
    assert opened.text.endswith("accuracy 0.6875 on 400 requests, 0.9 at training")
    assert opened.link == (
        "https://loans.example/monitor/api/feedback?model=credit&version=1.0.0&step=day"
    )
    view = LiveView("s", 1.0)
    view.feedback.append(feedback_view(world.store, KEY, world.expected, SETTINGS, None))
    text = live_exposition(view).decode()
    labels = '{metric="accuracy",model="credit",variant="champion",version="1.0.0"}'
    assert f"treeline_needs_retraining{labels} 1.0" in text
    assert f"treeline_outcome_ratio{labels} 0.6875" in text
    tell(world, 401, 2_000, "good")
    (resolved,) = look()
    assert (resolved.cause, resolved.state) == (opened.cause, "resolved")


def test_what_is_shown_adds_the_windows_of_nodes_up(world):
    tell(world, 1, 200, "bad", of=4)
    world.agent.take(feedback([Said(1, "1", kind="click")], 201))
    challenger = StreamKey("credit", "2.0.0", "challenger")
    stream = Stream(
        **{f: getattr(STREAM, f) for f in STREAM.__struct_fields__}
        | {"variant": "challenger", "version": "2.0.0"}
    )
    world.agent.take(delivery(1, 50, producer="c", stream=stream))
    world.count()
    world.agent.now_s += 10.0
    judging = Judging(world.store, world.counting._expectations, SETTINGS, world.agent.clock)
    judging.join_feedback()

    def view(store: str) -> LiveView:
        question = Question("feedback", level_s=86_400)
        return LiveView(
            store,
            1.0,
            feedback=[
                feedback_view(world.store, key, world.expected, LiveSettings(), question)
                for key in (KEY, challenger)
            ],
            fates={"credit": {"used": 200}},
        )

    shown = feedback_json(merged([view("a"), view("a"), view("b")]))
    assert shown["feedback"] == {"credit": {"used": 400}}
    champion, other = shown["streams"]
    assert champion["needs_retraining"] is True
    assert [s["rate"]["requests"] for s in champion["standings"]] == [
        200
    ] * 4  # two metrics, as two nodes judge them
    accuracy, click = champion["windows"]
    assert (accuracy["metric"], accuracy["value"], accuracy["requests"]) == ("accuracy", 0.75, 400)
    assert accuracy["low"] < 0.75 < accuracy["high"]
    assert (click["value"], click["rows"]) == (0.005, 400)
    assert (other["needs_retraining"], other["windows"][0]["requests"]) == (False, 100)


def test_a_regressor_is_shown_with_its_errors_and_flagged_by_rmse(tmp_path):
    training = {"oob_rmse": 2.0, "oob_mae": 1.5, "oob_rows": 5_000.0}
    expected = Expectation(profile=None, reason="none", training=training)
    world = World(tmp_path, expected=expected)
    rng = np.random.default_rng(11)
    errors = rng.normal(-1.0, 3.0, 400)
    world.agent.take(delivery(1, 400, stream=REGRESSION, events=predictions))
    words = [Said(seq, str(10.0 * seq - errors[seq - 1])) for seq in range(1, 401)]
    world.agent.take(feedback(words))
    world.count()
    world.agent.now_s += 10.0
    judging = Judging(world.store, world.counting._expectations, SETTINGS, world.agent.clock)
    judging.join_feedback()
    (cause,) = (c for c in judging.causes({}).values() if c.kind == "quality")
    rmse = float(np.sqrt(np.mean(errors**2)))
    assert cause.text.endswith(f"RMSE {rmse:.4g} on 400 requests, 2 at training")
    question = Question("feedback", level_s=86_400)
    view = LiveView("s", 1.0)
    view.feedback.append(feedback_view(world.store, KEY, expected, SETTINGS, question))
    (shown,) = feedback_json(view)["streams"]
    assert {w["metric"]: w["value"] for w in shown["windows"]} == {
        "rmse": pytest.approx(rmse),
        "mae": pytest.approx(float(np.abs(errors).mean())),
        "bias": pytest.approx(float(errors.mean())),
    }
    assert {s["metric"]: (s["reference"], s["degraded"]) for s in shown["standings"]} == {
        "rmse": (2.0, True),
        "mae": (1.5, False),
        "bias": (None, False),
    }
    text = live_exposition(view).decode()
    labels = '{metric="rmse",model="credit",variant="champion",version="1.0.0"}'
    assert f"treeline_needs_retraining{labels} 1.0" in text
    assert f"treeline_outcome_error{labels} {rmse:.6}"[:-2] in text
    assert 'treeline_outcome_reference{against="training",metric="rmse"' in text
    world.die()
