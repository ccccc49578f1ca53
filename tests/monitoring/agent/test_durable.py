import errno

import pytest

from monitoring.agent.durable import make_reserve, replace_file, with_reserve


def test_a_full_disk_costs_the_reserve_once(tmp_path):
    reserve = tmp_path / "reserve"
    make_reserve(reserve)
    failures = [OSError(errno.ENOSPC, "full")]

    def write():
        if failures:
            raise failures.pop()

    with_reserve(reserve, write)
    assert not reserve.exists()
    failures.append(OSError(errno.ENOSPC, "full"))
    with pytest.raises(OSError, match="full"):
        with_reserve(reserve, write)
    with_reserve(reserve, write)
    assert reserve.exists()


def test_other_errors_keep_the_reserve(tmp_path):
    reserve = tmp_path / "reserve"
    make_reserve(reserve)

    def write():
        raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"):
        with_reserve(reserve, write)
    assert reserve.exists()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "account"
    replace_file(path, b"old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="full"):
        replace_file(path, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("account", b"old")]
