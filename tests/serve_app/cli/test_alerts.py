"""``treeline alerts test`` against a webhook on this machine."""

import json

import pytest

from serve_app.cli.main import main
from tests.monitoring.live.receiver import Receiver


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(["alerts", "test", *arguments])
    return int(done.value.code or 0)


def test_a_test_alarm_arrives(receiver, monkeypatch, capsys):
    monkeypatch.setenv("TREELINE_ALERT_WEBHOOK", receiver.url)
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out) == {"delivered": True, "problem": None}
    assert receiver.messages[0]["kind"] == "test"


def test_a_refusal_is_a_finding_and_a_missing_url_misuse(receiver, monkeypatch, capsys):
    monkeypatch.setenv("TREELINE_ALERT_WEBHOOK", receiver.url)
    receiver.answers = [500]
    assert run() == 1
    assert "500" in capsys.readouterr().out
    monkeypatch.delenv("TREELINE_ALERT_WEBHOOK")
    assert run() == 2
