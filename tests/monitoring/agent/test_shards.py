"""The number of shards may change: nothing is stranded, and nothing is stored twice."""

from monitoring.agent.settings import SinkSettings
from monitoring.agent.verify import verify
from tests.monitoring.agent.conftest import Agent, delivery, stored_events


def whole(folder, last):
    assert stored_events(folder) == sorted(f"p1-{seq}-0" for seq in range(1, last + 1))
    verdict = verify(SinkSettings(url=str(folder / "sink")))
    assert (verdict.problems, verdict.written) == ((), last)


def test_two_shards_one_and_two_again_with_deliveries_sent_again(tmp_path):
    first = Agent(tmp_path, shard="1", shards=2, epoch="a")
    first.take(delivery(1, 3))
    first.drain()
    first.take(delivery(4, 5))
    first.die()

    only = Agent(tmp_path, shard="0", shards=1, epoch="b")
    assert only.spool.state().sealed_segments == 1
    assert only.take(delivery(1, 8)).through == 8
    only.die()

    other = Agent(tmp_path, shard="0", shards=2, epoch="c")
    again = Agent(tmp_path, shard="1", shards=2, epoch="d")
    assert again.take(delivery(2, 10)).through == 10
    for agent in (other, again):
        agent.drain()
        agent.die()
    whole(tmp_path, 10)
    assert not (tmp_path / "state" / "spool" / "1" / "a").exists()


def test_a_shard_where_somebody_lives_is_left_alone_but_read(tmp_path):
    dead = Agent(tmp_path, shard="1", shards=2, epoch="a")
    dead.take(delivery(1, 2))
    dead.die()
    old = Agent(tmp_path, shard="1", shards=2, epoch="b")
    old.take(delivery(3, 4))
    new = Agent(tmp_path, shards=1, epoch="c")
    assert new.spool.state().foreign_epochs == 2
    assert new.spool.adopt(new.now_s) == 0
    assert new.take(delivery(1, 6)).through == 6
    old.die()
    assert new.spool.adopt(new.now_s) == 2
    assert new.spool.state().foreign_epochs == 0
    new.drain()
    new.die()
    whole(tmp_path, 6)


def test_a_stray_segment_that_is_in_its_checkpoint_is_not_counted_again(tmp_path):
    old = Agent(tmp_path, shard="1", shards=2, epoch="a")
    old.take(delivery(1, 5))
    old.spool.seal_everything(old.now_s)
    segment = old.spool.next_sealed()
    content = segment.path.read_bytes()
    old.drain()
    segment.path.write_bytes(content)  # as if the agent had died before the deletion
    old.die()
    new = Agent(tmp_path, shards=1, epoch="b")
    assert new.spool.state().sealed_segments == 0
    assert new.take(delivery(1, 6)).through == 6
    new.drain()
    new.die()
    whole(tmp_path, 6)


def test_a_living_neighbour_is_no_stray(tmp_path):
    left = Agent(tmp_path, shard="0", shards=2, epoch="a")
    right = Agent(tmp_path, shard="1", shards=2, epoch="b")
    left.take(delivery(1, 2))
    left.die()
    assert right.spool.adopt(right.now_s) == 0
    right.die()
    assert (tmp_path / "state" / "spool" / "0" / "a").exists()
