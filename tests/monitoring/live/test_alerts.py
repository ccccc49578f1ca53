"""Alerts: one state per cause, told at least once, whoever dies and whatever is away."""

from pathlib import Path

import pytest

from monitoring.agent.settings import LiveSettings
from monitoring.live.alerting import FIRST_WAIT_S, Alerting
from monitoring.live.alerts import Cause
from monitoring.live.capture_health import note_health, unhealthy
from monitoring.live.errors import WebhookFailed
from monitoring.live.store import Store
from monitoring.live.verdicts import Verdicts
from monitoring.live.webhook import post
from monitoring.live.window import StreamKey
from tests.monitoring.live.receiver import Receiver

DRIFT = {"drift:m/1/champion": Cause("drift", "age moved", 5.0, "/monitor/api/drift")}


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


class World:
    """A store that outlives what alerts from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 100.0
        self.away = False
        self.sent: list[tuple[str, int, str]] = []
        self.start()

    def start(self) -> None:
        self.store = Store(self.folder / "live.sqlite", 3600)
        self.alerting = Alerting(self.store, lambda: self.now_s, self.send)

    def send(self, alert) -> None:
        if self.away:
            raise WebhookFailed("away")
        self.sent.append((alert.cause, alert.number, alert.state))

    def restart(self) -> None:
        self.store.close()
        self.start()


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path)
    yield made
    made.store.close()


def test_a_cause_opens_once_is_resolved_once_and_may_come_again(world):
    for causes in (DRIFT, DRIFT, {}, {}, DRIFT):
        world.alerting.update(causes)
        world.alerting.deliver()
        world.restart()  # survives each
    (name,) = DRIFT
    assert world.sent == [(name, 1, "open"), (name, 1, "resolved"), (name, 2, "open")]
    assert world.alerting.known()[name].since_s == 5.0


def test_a_webhook_that_is_away_gets_the_messages_later_in_order(world):
    world.away = True
    world.alerting.update(DRIFT)
    assert world.alerting.deliver() == 0
    world.alerting.update({})
    world.away = False
    assert world.alerting.deliver() == 0  # waits a little first
    world.now_s += FIRST_WAIT_S
    assert world.alerting.deliver() == 2
    assert [state for _, _, state in world.sent] == ["open", "resolved"]
    assert world.alerting.deliver() == 0


def test_without_a_webhook_nothing_piles_up(world):
    quiet = Alerting(world.store, lambda: world.now_s)
    assert len(quiet.update(DRIFT)) == 1
    assert world.alerting.deliver() == 0


def test_a_message_is_posted_as_json(receiver):
    post(receiver.url, {"text": "hello"})
    assert receiver.messages == [{"text": "hello"}]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_whatever_is_not_taken_failed_and_shows_no_secret(receiver, status):
    receiver.answers = [status]
    with pytest.raises(WebhookFailed, match=str(status)) as failed:
        post(receiver.url, {})
    assert "s3cr3t" not in str(failed.value)
    assert receiver.messages == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/s3cr3t", "file:///etc/passwd", "http://[s3cr3t"]
)
def test_an_unreachable_or_impossible_url_fails_without_showing_it(url):
    with pytest.raises(WebhookFailed) as failed:
        post(url, {}, timeout_s=1.0)
    assert url not in str(failed.value)
    assert "s3cr3t" not in str(failed.value)


def test_settings_do_not_show_where_alerts_go():
    assert "s3cr3t" not in repr(LiveSettings(webhook_url="http://x/s3cr3t"))


def test_what_an_agent_says_of_its_capture_opens_an_alert_as_long_as_it_is_said(world):
    note_health(world.store, "0", {"storage": "storage fails for 60 s"}, world.now_s)
    note_health(world.store, "1", {}, world.now_s)
    (cause,) = unhealthy(world.store, world.now_s).values()
    assert (cause.kind, cause.link) == ("capture", "/monitor/api/health")
    world.alerting.update(unhealthy(world.store, world.now_s))
    note_health(world.store, "0", {"storage": "storage fails for 90 s"}, world.now_s + 30)
    world.alerting.update(unhealthy(world.store, world.now_s + 30))
    note_health(world.store, "0", {}, world.now_s + 60)
    world.alerting.update(unhealthy(world.store, world.now_s + 60))
    world.alerting.deliver()
    name = "capture:0/storage"
    assert world.sent == [(name, 1, "open"), (name, 1, "resolved")]
    note_health(world.store, "1", {"spool": "full"}, world.now_s)
    assert unhealthy(world.store, world.now_s + 61) == {}  # that agent is gone


def test_showing_waits_for_no_writer(world):
    """A scrape reads; a transaction that counts may take its time."""
    other = Store(world.folder / "live.sqlite", 3600)
    Verdicts(other)
    Alerting(other)
    other.connection.execute("PRAGMA busy_timeout = 0")
    with world.store.transaction():
        assert Alerting(other).known() == {}
        assert Verdicts(other).reports(StreamKey("m", "1", "champion"), 0.0, 1e18) == []
    other.close()
