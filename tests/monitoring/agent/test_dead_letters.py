from monitoring.agent.dead_letters import DeadLetters


def segment(folder, name, size=100):
    path = folder / name
    path.write_bytes(bytes(size))
    return path


def test_a_link_needs_no_room_and_outlives_the_segment(tmp_path):
    letters = DeadLetters(tmp_path / "dead", 1000)
    path = segment(tmp_path, "a.spool")
    letters.keep(path, "why")
    letters.keep(path, "why")  # an upload that is tried again
    assert path.stat().st_nlink == 2
    path.unlink()
    assert letters.names() == ("a.spool",)
    assert (letters.folder / "a.spool.reason.txt").read_text() == "why\n"


def test_past_the_bound_only_the_reason_is_kept(tmp_path):
    letters = DeadLetters(tmp_path / "dead", 250)
    for name in ("a.spool", "b.spool", "c.spool"):
        letters.keep(segment(tmp_path, name), "why")
    assert letters.names() == ("a.spool", "b.spool")
    said = (letters.folder / "c.spool.reason.txt").read_text()
    assert said == "why (not kept: 208 bytes lie here already)\n"


def test_where_links_cannot_be_made_a_copy_is_kept(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    letters = DeadLetters(tmp_path / "dead", 1000)
    path = segment(tmp_path, "a.spool")
    letters.keep(path, "why")
    assert (letters.folder / "a.spool").read_bytes() == path.read_bytes()
    assert path.stat().st_nlink == 1


def test_a_reason_that_finds_no_room_is_logged(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    letters = DeadLetters(tmp_path / "dead", 1000)
    letters.keep(segment(tmp_path, "a.spool"), "why")
    assert letters.names() == ("a.spool",)
    assert "only logged" in caplog.text


def test_without_a_folder_there_are_none(tmp_path):
    assert DeadLetters(tmp_path / "dead", 1000).names() == ()


def test_what_a_crash_left_of_a_file_is_no_dead_letter(tmp_path):
    letters = DeadLetters(tmp_path / "dead", 1000)
    letters.keep(segment(tmp_path, "a.spool"), "why")
    (letters.folder / ".b.spool.17.tmp").touch()
    assert letters.names() == ("a.spool",)
