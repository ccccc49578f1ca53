from monitoring.agent.ledger import Covered
from monitoring.agent.received import Received


def test_what_is_saved_is_found_again(tmp_path):
    one = Received(tmp_path)
    one.refresh()
    one.add("p", 1, 5, 10.0)
    one.settle("e-0", {"p": [Covered(first=1, last=4, received=4, written=4, sampled_out=0)]})
    one.settle("e-0", {"p": [Covered(first=1, last=4, received=4, written=4, sampled_out=0)]})
    one.save()
    two = Received(tmp_path)
    two.refresh()
    assert two.missing("p", 1, 9) == [(6, 9)]
    assert two.through("p") == 5
    assert two.tallies["p"].written == 4
    assert two.settled == ["e-0"]
    assert two.through("unknown") == 0
    assert {p.name for p in tmp_path.iterdir()} == {"received.msgpack", "reserve"}
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}


def test_a_checkpoint_that_cannot_be_read_is_kept_and_does_not_stop_the_agent(tmp_path, caplog):
    (tmp_path / "received.msgpack").write_bytes(b"rubbish")
    found = Received(tmp_path)
    found.refresh()
    assert found.missing("p", 1, 2) == [(1, 2)]
    assert (tmp_path / "received.unreadable").read_bytes() == b"rubbish"
    assert "cannot be read" in caplog.text
    found.add("p", 1, 2, 10.0)
    found.save()
    again = Received(tmp_path)
    again.refresh()
    assert again.through("p") == 2


def test_what_others_acknowledged_is_known_and_not_held(tmp_path):
    one = Received(tmp_path)
    one.add_elsewhere("p", 1, 5, 10.0)
    one.add("p", 4, 8, 10.0)
    one.save()
    two = Received(tmp_path)
    two.refresh()
    assert two.through("p") == 8
    assert two.missing("p", 1, 9) == [(9, 9)]
    assert two.missing("p", 1, 9, held_here=True) == [(1, 3), (9, 9)]
