import pytest
from pydantic import ValidationError

from serve_app.settings import Settings, UserConfig


def test_defaults_are_the_quickstart() -> None:
    settings = Settings()
    assert (settings.model.name, settings.model.version) == ("credit", "1.0.0")
    assert settings.sink == ".treeline/sink"


def test_unknown_key_is_named_with_what_is_allowed() -> None:
    with pytest.raises(ValidationError, match=r"unknown key 'snik'.*sink.*Did you mean 'sink'"):
        Settings.model_validate({"snik": "x"})


def test_unknown_key_in_a_section_is_named() -> None:
    with pytest.raises(ValidationError, match=r"agent: unknown key 'shard'.*shards"):
        Settings.model_validate({"agent": {"shard": 2}})


def test_value_out_of_range_names_key_value_and_range() -> None:
    with pytest.raises(ValidationError) as caught:
        UserConfig.model_validate({"sampling": {"rate": 1.5}})
    message = str(caught.value)
    assert "sampling.rate" in message
    assert "less than or equal to 1" in message
    assert "1.5" in message


@pytest.mark.parametrize("version", ["../1", "", "a/b", ".."])
def test_model_version_is_one_folder(version: str) -> None:
    with pytest.raises(ValidationError, match=r"model\.version"):
        Settings.model_validate({"model": {"version": version}})


def test_secret_is_in_no_repr() -> None:
    good = Settings.model_validate({"storage": {"secret_access_key": "hunter2"}})
    assert "hunter2" not in repr(good)


@pytest.mark.parametrize(
    "wrong",
    [
        {"storage": {"secret_access_key": "hunter2", "region": 5}},
        {"storage": {"secret_access_key": "hunter2", "regoin": "x"}},
        {"storage": {"secret_access_key": ["hunter2"]}},
        {"storage": "hunter2"},
        {"storage": {"secret_access_key": "hunter2"}, "snik": "x"},
        {"storage": {"secret_access_key": "hunter2"}, "sink": 3},
    ],
)
def test_secret_is_in_no_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(wrong)
    assert "hunter2" not in str(caught.value)


def test_a_quota_without_room_is_named_with_its_path() -> None:
    with pytest.raises(
        ValidationError, match=r"capture\.journal: quota_bytes is 1048576.*16777216"
    ):
        Settings.model_validate({"capture": {"journal": {"quota_bytes": 1 << 20}}})


def test_state_must_be_local() -> None:
    with pytest.raises(ValidationError, match=r"state_dir: allowed: a local folder.*s3://b/x"):
        Settings.model_validate({"state_dir": "s3://b/x"})


def test_local_paths_become_absolute_and_urls_stay() -> None:
    settings = Settings(sink="s3://bucket/log").resolved()
    assert settings.sink == "s3://bucket/log"
    assert settings.state_dir.startswith("/")


def test_a_version_is_loaded_once() -> None:
    assert Settings(variants=["1.1.0"]).variants == ["1.1.0"]
    with pytest.raises(ValidationError, match=r"variants: 1\.0\.0 is given twice"):
        Settings(variants=["1.1.0", "1.0.0"])


CANARY = {"version": "2", "start": "2026-09-21T12:00:00Z", "steps": [{"share": 0.5}]}


@pytest.mark.parametrize(
    ("traffic", "problem"),
    [
        ({"shares": {"2": 0.7, "3": 0.4}}, r"shares sum up to 1\.1; allowed: up to 1"),
        ({"shares": {"3": 0.6}, "canary": CANARY}, r"shares sum up to 1\.1"),
        ({"shares": {"2": 0.1}, "canary": CANARY}, "'2' is in `shares` and in `canary`"),
        ({"shares": {"2": 1.5}}, r"traffic\.shares\.2.*1\.5"),
        ({"canary": CANARY | {"start": "2026-09-21T12:00:00"}}, r"canary\.start.*timezone"),
        (
            {"canary": CANARY | {"steps": [{"share": 0.1}, {"share": 0.2}]}},
            r"steps\[0\] has no `hold_s`",
        ),
        ({"unit": "visit"}, r"traffic\.unit"),
        ({"salt": "ü" * 40}, r"traffic\.salt: allowed: up to 64 bytes"),
    ],
)
def test_a_split_that_cannot_be_is_named(traffic: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        UserConfig.model_validate({"traffic": traffic})
