"""`treeline deploy`: checks first, then hands the config to Ray Serve."""

from pathlib import Path

import pytest

from serve_app.cli.deploy import DeployFailed, serve_deploy
from tests.e2e.application import free_port

APPLICATION = "applications: [{name: shop, import_path: shop:build}]"


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(APPLICATION)
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(DeployFailed, match=rf"serve\.yaml is not deployed: .*{address}") as failed:
        serve_deploy(config, address)
    assert "\n" not in str(failed.value)
