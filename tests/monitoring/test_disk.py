from monitoring.disk import FILE_NAME, disk_id


def test_a_folder_keeps_its_id_and_two_folders_differ(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    assert disk_id(first) == disk_id(first) != disk_id(second) != ""
    assert (first / FILE_NAME).read_text() == disk_id(first)


def test_what_cannot_be_told_is_empty(tmp_path, caplog):
    (tmp_path / "file").touch()
    assert disk_id(tmp_path / "file") == ""
    assert "cannot be told" in caplog.text
