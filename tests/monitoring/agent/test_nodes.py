"""Who is to be looked at: scripted nodes, replicas and clock."""

import msgspec
import pytest

from monitoring.agent.fleet import ALIVE_S, Fleet
from monitoring.agent.nodes import (
    LEASE_S,
    NEIGHBOUR_S,
    PAUSE_S,
    PROBLEM_PAUSE_S,
    SETTLING_S,
    Look,
    Nodes,
)
from tests.monitoring.agent.test_metrics import report


class World:
    def __init__(self):
        self.now_s = 1000.0
        self.fleet = Fleet()
        self.nodes = Nodes("a", self.fleet, lambda: self.now_s)
        self.alive = ["a", "b"]

    def reports(self, replica, node, **changes):
        said = msgspec.structs.replace(report(replica), node=node, journals=(f"{replica}-p",))
        self.fleet.note(msgspec.structs.replace(said, **changes), self.now_s)

    def poll(self):
        return self.nodes.poll(self.alive).look_at

    def looks(self, node, **found):
        self.nodes.looked(Look(node=node, **found))


@pytest.fixture
def world():
    return World()


@pytest.fixture
def settled(world):
    """Every node has been looked at once."""
    world.now_s += SETTLING_S
    assert world.poll() == "b"
    world.looks("b")
    world.now_s += LEASE_S
    assert world.poll() is None
    return world


def test_every_other_node_is_looked_at_once_in_an_agents_life(world):
    assert world.poll() is None
    world.now_s += SETTLING_S
    world.alive = ["a", "b", "c"]
    assert [world.poll(), world.poll(), world.poll()] == ["b", "c", None]
    world.looks("b")
    world.looks("c", problems=("no room",))
    assert world.poll() is None
    world.now_s += PROBLEM_PAUSE_S
    assert world.poll() == "c"  # again until nothing is left
    assert [h.problems for h in world.nodes.health()] == [("no room",)]
    world.looks("c")
    world.now_s += LEASE_S
    assert world.poll() is None
    assert world.nodes.health() == []


def test_a_gone_node_of_the_same_disk_is_not_waited_for_once_its_journals_are_gone(tmp_path):
    world = World()
    world.nodes = Nodes("a", world.fleet, lambda: world.now_s, disk="d", journals=tmp_path)
    for replica, disk in (("same", "d"), ("other", "e"), ("unknown", "")):
        world.reports(replica, f"before-{replica}", disk=disk)
    (tmp_path / "same-p").mkdir()
    world.now_s += ALIVE_S + 1
    world.poll()
    waiting = ["before-other", "before-same", "before-unknown"]
    assert [h.node for h in world.nodes.health()] == waiting
    (tmp_path / "same-p").rmdir()  # a replica here has handed it over
    world.poll()
    assert [h.node for h in world.nodes.health()] == ["before-other", "before-unknown"]


def test_a_node_is_looked_at_when_its_last_replica_has_fallen_silent(settled):
    settled.reports("r1", "b")
    settled.reports("r2", "b")
    settled.now_s += ALIVE_S + 1
    settled.reports("r2", "b")
    assert settled.poll() is None  # r2 hands r1's journal over
    settled.now_s += ALIVE_S + 1
    assert settled.poll() == "b"
    assert settled.poll() is None  # somebody is at it
    settled.looks("b", handed_over=("r1-p", "r2-p"))
    settled.now_s += LEASE_S
    assert settled.poll() is None


def test_a_look_that_never_came_back_is_asked_for_again(settled):
    settled.reports("r1", "b")
    settled.now_s += ALIVE_S + 1
    assert settled.poll() == "b"
    settled.now_s += LEASE_S
    assert settled.poll() == "b"


def test_a_replica_that_closed_its_journals_leaves_nothing(settled):
    settled.reports("r1", "b", closed=True)
    settled.reports("r2", "b", journals=())  # captures nothing
    settled.now_s += ALIVE_S + 1
    assert settled.poll() is None
    assert settled.nodes.health() == []


def test_the_agents_own_node_is_looked_at_for_replicas_only(settled):
    settled.reports("r1", "a")
    settled.now_s += ALIVE_S + 1
    assert settled.poll() == "a"


def test_a_journal_that_is_still_there_is_not_done_with(settled):
    settled.reports("r1", "b")
    settled.now_s += ALIVE_S + 1
    assert settled.poll() == "b"
    settled.looks("b", left=("r1-p",))  # its process is silent, and holds the lock
    settled.now_s += PAUSE_S
    assert settled.poll() == "b"


def test_a_journal_whose_handing_over_nobody_reported_is_found_gone(settled):
    settled.reports("r1", "b")
    settled.now_s += ALIVE_S + 1
    assert settled.poll() == "b"
    settled.looks("b")
    settled.now_s += LEASE_S
    assert settled.poll() is None


def test_a_report_that_comes_after_all_opens_the_account_again(settled):
    settled.reports("r1", "b")
    settled.now_s += ALIVE_S + 1
    assert settled.poll() == "b"
    settled.reports("r1", "b", ongoing=1)
    settled.looks("b")
    settled.now_s += LEASE_S
    assert settled.poll() == "b"


def test_a_look_that_did_not_take_place_settles_nothing(settled):
    settled.reports("r1", "b")
    settled.now_s += ALIVE_S + 1
    assert settled.poll() == "b"
    settled.looks("b", left=None, problems=("not looked at",))  # it died meanwhile
    (shown,) = settled.nodes.health()
    assert (shown.replicas, shown.problems) == (1, ("not looked at",))
    settled.now_s += LEASE_S
    assert settled.poll() == "b"


def test_a_node_that_is_gone_waits_and_is_shown(settled):
    settled.reports("r1", "b")
    settled.now_s += ALIVE_S + 50
    settled.alive = ["a"]
    assert settled.poll() is None
    (shown,) = settled.nodes.health()
    assert (shown.node, shown.alive, shown.replicas) == ("b", False, 1)
    assert (shown.silent_s, shown.unacknowledged) == (60.0, 1)
    # The machine returns under another name, with the same disk.
    settled.alive = ["a", "c"]
    assert settled.poll() == "c"
    settled.looks("c", handed_over=("r1-p",))
    assert settled.nodes.health() == []


def test_that_nobody_could_look_is_forgotten_with_the_node(settled):
    """Nobody will look there again: under that name it never returns."""
    settled.looks("b", left=None, problems=("not looked at",))  # it died meanwhile
    settled.alive = ["a"]
    settled.poll()
    assert settled.nodes.health() == []


def test_what_a_look_found_on_a_node_that_is_gone_stays_shown(settled):
    """A spool, say, of which nothing else tells."""
    settled.looks("b", problems=("spool of shard 0: 3 left",))
    settled.alive = ["a"]
    settled.poll()
    (shown,) = settled.nodes.health()
    assert (shown.alive, shown.problems) == (False, ("spool of shard 0: 3 left",))


def test_a_look_cut_short_takes_nothing_back(settled):
    settled.looks("b", problems=("spool of shard 0: 3 left",))
    for _ in range(2):
        settled.looks("b", left=None, problems=("not looked at",))  # it died meanwhile
    settled.alive = ["a"]
    settled.poll()
    (shown,) = settled.nodes.health()
    assert shown.problems == ("spool of shard 0: 3 left", "not looked at")


def test_what_a_neighbour_handed_over_is_done_with(settled):
    settled.reports("r1", "b")
    settled.nodes.handed_over(["r1-p"])
    settled.now_s += ALIVE_S + 1
    assert settled.poll() is None


def test_what_no_neighbour_has_spoken_of_is_looked_at_after_a_minute(settled):
    """It closed its journals, say, and its last word got lost."""
    settled.reports("r1", "b")
    settled.now_s += NEIGHBOUR_S
    settled.reports("r2", "b")
    assert settled.poll() is None
    settled.now_s += 1
    assert settled.poll() == "b"
    settled.looks("b", left=("r2-p",))
    assert settled.nodes.health() == []
    settled.now_s += PROBLEM_PAUSE_S
    settled.reports("r2", "b")
    assert settled.poll() is None


def test_replicas_are_not_taken_for_dead_when_the_clock_steps_back(settled):
    settled.reports("r1", "b")
    settled.now_s -= 7200
    settled.reports("r1", "b")
    assert settled.fleet.totals(settled.now_s).replicas == 1
    settled.now_s += ALIVE_S + 1
    assert settled.fleet.totals(settled.now_s).replicas == 0
