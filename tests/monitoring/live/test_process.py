"""What the counting process does beside counting, in this process."""

import msgspec

from monitoring.agent.settings import AgentSettings, LiveSettings
from monitoring.live.process import Live
from monitoring.live.wire import Segments


def test_it_keeps_up_to_when_all_has_been_counted(tmp_path):
    settings = AgentSettings(policy_ids=(), state_dir=str(tmp_path), live=LiveSettings())
    live = Live(settings, lambda: 1_000.0)
    store = live.open_store()
    assert not store.caught_up(0.0, since_s=0.0)
    live.count(msgspec.msgpack.encode(Segments([])))
    assert store.caught_up(1_000.0, since_s=0.0)
    assert not store.caught_up(1_001.0, since_s=0.0)
    assert not store.caught_up(1_000.0, since_s=1_001.0)
    live._ready().store.close()
    store.close()
