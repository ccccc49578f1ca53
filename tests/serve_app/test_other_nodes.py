"""A look at a node's disk, on real folders and without Ray; the task itself is run end to end."""

from monitoring.agent.settings import SinkSettings
from monitoring.agent.sink import FsspecSink
from monitoring.agent.verify import verify
from monitoring.errors import SinkUnavailable
from serve_app.other_nodes import look
from serve_app.settings import Settings
from tests.monitoring.agent.conftest import Agent, delivery
from tests.monitoring.capture.streams import POLICY, open_journal, open_recorder, record
from tests.monitoring.capture.victims import die


class Agents:
    """The living agent, on another disk than the node that is looked at."""

    def __init__(self, folder):
        self.sink = FsspecSink(SinkSettings(url=str(folder / "sink")))
        self.agent = Agent(folder / "here", epoch="e-here", sink=self.sink)
        self.agent.intake._policy_ids |= {POLICY.policy_id}
        self.away = False

    async def ingest(self, payload):
        if self.away:
            raise SinkUnavailable("no room")
        return self.agent.take(payload)


def there(tmp_path, agents):
    """A node's disk: a dead agent's spool with 4 events, a dead replica's journal with 3."""
    state = tmp_path / "there" / "state"
    old = Agent(tmp_path / "there", epoch="e-there", sink=agents.sink)
    old.take(delivery(1, 4, producer="long-gone"))
    old.die()
    journal = die(state / "journal")
    return Settings(state_dir=str(state), sink=str(tmp_path / "sink")), journal


async def test_journals_and_spools_of_a_node_are_handed_over(tmp_path):
    agents = Agents(tmp_path)
    agents.agent.spool.mark("p-1", 1, 2, agents.agent.now_s)
    settings, journal = there(tmp_path, agents)
    found = await look(settings, "n", [], {0: agents})
    assert (found.handed_over, found.left, found.segments) == (("p-1",), (), 1)
    assert found.problems == ()
    assert not journal.exists()
    agents.agent.drain()
    agents.agent.die()
    verdict = verify(SinkSettings(url=str(tmp_path / "sink")))
    assert verdict.written == 4 + 3


async def test_spools_of_agents_that_live_there_are_theirs(tmp_path):
    agents = Agents(tmp_path)
    settings, _ = there(tmp_path, agents)
    assert (await look(settings, "n", [0], {0: agents})).segments == 0
    agents.agent.die()


async def test_what_is_in_use_or_finds_no_agent_is_named(tmp_path):
    agents = Agents(tmp_path)
    settings, _ = there(tmp_path, agents)
    living = open_journal(tmp_path / "there/state/journal", producer="p-2")
    record(open_recorder(living))
    agents.away = True
    found = await look(settings, "n", [], {0: agents}, part_timeout_s=0.05)
    assert (found.handed_over, found.left, found.segments) == ((), ("p-1", "p-2"), 0)
    assert [problem.split(":")[0] for problem in found.problems] == [
        "journal of p-1",
        "spool of shard 0",
    ]
    living.close()
    agents.agent.die()


async def test_an_empty_disk_is_a_complete_look(tmp_path):
    agents = Agents(tmp_path)
    found = await look(Settings(state_dir=str(tmp_path / "no")), "n", [], {0: agents})
    assert (found.handed_over, found.left, found.problems) == ((), (), ())
    agents.agent.die()
