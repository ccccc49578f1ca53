"""What is wrong in a Serve config is said before anything starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.serve_config import ServeConfigInvalid, check, read_checked

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from serve_app.cli.main import main

    root = tmp_path_factory.mktemp("models")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        with pytest.raises(SystemExit):
            main(["demo", "--root", str(root), "--version", version])
    return root


def shipped(name: str, root: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CONFIGS / name).read_text())
    document["applications"][0]["args"] |= {"model_root": str(root), "state_dir": str(root / "s")}
    return document


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_what_is_shipped_is_right(path: Path, root: Path) -> None:
    check(shipped(path.name, root))


def args(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["applications"][0]["args"]
    return found


def deployment(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["applications"][0]["deployments"][0]
    return found


def misspelt_setting(document: dict[str, Any]) -> None:
    args(document)["agent"]["file_max_age"] = 10


def negative_setting(document: dict[str, Any]) -> None:
    args(document)["agent"]["file_max_age_s"] = -10


def no_bundle(document: dict[str, Any]) -> None:
    args(document)["model"]["version"] = "9.0.0"


def masked_stranger(document: dict[str, Any]) -> None:
    args(document)["masking"] = {"features": {"agee": {"action": "drop"}}}


def misspelt_user_config(document: dict[str, Any]) -> None:
    deployment(document)["user_config"] = {"samplng": {"rate": 1.0}}


def version_not_loaded(document: dict[str, Any]) -> None:
    deployment(document)["user_config"]["traffic"]["shares"] = {"1.3.0": 0.6}


def misspelt_policy(document: dict[str, Any]) -> None:
    policy = {"policy_function": "autoscaling.serve_policy:LatencyPolicy"}
    policy |= {"policy_kwargs": {"slo": 200}}
    deployment(document)["autoscaling_config"] = {"policy": policy}


def late_policy(document: dict[str, Any]) -> None:
    misspelt_policy(document)
    deployment(document)["autoscaling_config"]["policy"]["policy_kwargs"] = {"slo_ms": -200}


def misspelt_deployment(document: dict[str, Any]) -> None:
    deployment(document)["name"] = "ModelSever"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (misspelt_setting, "treeline: args: agent: unknown key 'file_max_age'; allowed keys: "),
        (negative_setting, "args: agent.file_max_age_s: Input should be greater than 0, not -10"),
        (no_bundle, "args: no bundle at .*9.0.0"),
        (masked_stranger, "args: .*agee"),
        (misspelt_user_config, "user_config: unknown key 'samplng'; .* Did you mean 'sampling'"),
        (version_not_loaded, "user_config: traffic names version '1.3.0'; allowed: 1.1.0, 1.2.0"),
        (misspelt_policy, "policy_kwargs: key = 'slo' is not allowed: one of slo_ms, "),
        (late_policy, "policy_kwargs: slo_ms = -200"),
        (misspelt_deployment, "deployments: name 'ModelSever' is not allowed: ModelServer"),
    ],
)
def test_what_is_wrong_is_named(
    change: Callable[[dict[str, Any]], None], expected: str, root: Path, tmp_path: Path
) -> None:
    document = shipped("canary.yaml", root)
    change(document)
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ServeConfigInvalid, match=expected) as refused:
        read_checked(path)
    assert str(refused.value).startswith(f"{path}: treeline: ")
    assert "pydantic" not in str(refused.value)


def test_what_is_not_ours_is_ray_serves(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("applications: [{name: shop, import_path: shop:build, args: {any: thing}}]")
    read_checked(path)


@pytest.mark.parametrize("text", ["", "[]", "applications: 3", "aplications: []", "{"])
def test_a_file_that_is_no_serve_config(text: str, tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(ServeConfigInvalid, match=r"serve\.yaml: not "):
        read_checked(path)
