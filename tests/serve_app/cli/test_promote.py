"""``treeline promote``: the rule of a config, held against a log; nothing changes unasked."""

import json

import numpy as np
import pyarrow as pa
import pytest
import yaml

from serve_app.settings import UserConfig
from tests.monitoring.analysis.logs import answers, labels, write_log

RULE = {
    "version": "2.0.0",
    "since": "2026-09-21T00:00:00Z",
    "margins": {"accuracy": 0.05, "error_rate": 0.01},
    "plan_units": 4_000,
}


def config_of(folder, *, right: float, rule=RULE, n: int = 4_000):
    rng = np.random.default_rng(1)
    old = answers("1.0.0", rng, n)
    new = answers("2.0.0", rng, n, first=n, variant="challenger")
    asked = answers("3.0.0", rng, 3, first=2 * n, variant="challenger")  # by name: not compared
    truth = pa.concat_tables([labels(old, rng, 0.85), labels(new, rng, right)])
    write_log(folder / "sink", pa.concat_tables([old, new, asked]), truth)
    traffic = {"shares": {"2.0.0": 0.5}, "shadows": {"2.0.0": 1.0}, "rule": rule}
    document = {
        "http_options": {"port": 8000},
        "applications": [
            {
                "name": "treeline",
                "import_path": "serve_app.app:build",
                "args": {"sink": str(folder / "sink"), "variants": ["2.0.0"]},
                "deployments": [
                    {
                        "name": "ModelServer",
                        "user_config": {"sampling": {"rate": 1.0}, "traffic": traffic},
                    }
                ],
            }
        ],
    }
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def traffic_in(path):
    document = yaml.safe_load(path.read_text())
    assert document["http_options"] == {"port": 8000}
    (deployment,) = document["applications"][0]["deployments"]
    assert deployment["user_config"]["sampling"] == {"rate": 1.0}
    return UserConfig.model_validate(deployment["user_config"]).traffic


def test_a_version_as_good_is_promoted_in_the_written_config(treeline, tmp_path) -> None:
    config, after = config_of(tmp_path, right=0.87), tmp_path / "after.yaml"
    before = config.read_text()
    code, out, _ = treeline("promote", config, "--write", after, "--json")
    found = json.loads(out)
    assert (code, found["action"], found["applied"]) == (0, "promote", False)
    assert found["report"]["split"]["ok"]
    assert config.read_text() == before
    traffic = traffic_in(after)
    assert (traffic.shares, traffic.shadows, traffic.rule) == ({"2.0.0": 1.0}, {}, None)
    assert traffic.reason.startswith("promote 2.0.0: no worse than allowed: accuracy within 0.05")


def test_a_worse_version_is_rolled_back_and_is_a_finding(treeline, tmp_path) -> None:
    config = config_of(tmp_path, right=0.7)
    code, out, _ = treeline("promote", config, "--write", config)
    assert code == 1
    assert "rollback 2.0.0: accuracy is worse by" in out
    traffic = traffic_in(config)
    assert (traffic.shares, traffic.shadows) == ({}, {"2.0.0": 1.0})


def test_while_it_is_open_nothing_is_written(treeline, tmp_path) -> None:
    config = config_of(tmp_path, right=0.85, rule={**RULE, "min_units": 5_000})
    after = tmp_path / "after.yaml"
    code, out, _ = treeline("promote", config, "--write", after)
    assert code == 0
    assert "wait 2.0.0: accuracy: 4000 units; 5000 are needed" in " ".join(out.split())
    assert not after.exists()


def test_a_log_without_the_version_waits(treeline, tmp_path) -> None:
    config = config_of(tmp_path, right=0.85, rule={**RULE, "since": "2027-01-01T00:00:00Z"}, n=200)
    code, out, _ = treeline("promote", config)
    assert code == 0
    assert "no answers of 1.0.0, 2.0.0 in the log since 2027-01-01" in " ".join(out.split())


@pytest.mark.parametrize(
    ("rule", "options", "said"),
    [
        (None, (), "no `user_config.traffic.rule`"),
        ({**RULE, "margins": {"score": 0.1}}, (), "'score' cannot decide"),
        ({**RULE, "margins": {"nonsense": 0.1}}, (), "metric is 'nonsense'; allowed: accuracy"),
        (RULE, ("--apply",), "--apply needs --write"),
        ({**RULE, "min_units": 10}, (), "treeline: traffic.rule.min_units: Input should be"),
    ],
)
def test_misuse_is_named(treeline, tmp_path, rule, options, said) -> None:
    code, _, err = treeline("promote", config_of(tmp_path, right=0.8, rule=rule, n=200), *options)
    assert code == 2
    assert said in err
