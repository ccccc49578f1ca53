import os
import stat

from serve_app.model.kernel_cache import private_folder


def test_the_folder_is_made_for_this_user_alone(tmp_path):
    folder = private_folder(tmp_path, os.getuid())
    assert folder is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert private_folder(tmp_path, os.getuid()) == folder


def test_a_folder_that_others_may_write_is_not_used(tmp_path):
    folder = private_folder(tmp_path, os.getuid())
    folder.chmod(0o777)
    assert private_folder(tmp_path, os.getuid()) is None


def test_a_folder_of_another_user_is_not_used(tmp_path):
    assert private_folder(tmp_path, os.getuid() + 1) is None


def test_a_link_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / f"treeline-numba-{os.getuid()}").symlink_to(elsewhere)
    assert private_folder(tmp_path, os.getuid()) is None


def test_a_root_that_does_not_exist_gives_none(tmp_path):
    assert private_folder(tmp_path / "missing", os.getuid()) is None
