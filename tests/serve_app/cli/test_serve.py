"""`treeline serve` says where it will answer before Ray Serve says much else."""

from pathlib import Path

from serve_app.cli.serve import told_start

SHOP = {"name": "shop", "import_path": "shop:build", "route_prefix": "/shop"}
OURS = {"name": "credit", "import_path": "serve_app.app:build", "route_prefix": "/credit"}


def test_only_what_is_ours_is_promised_to_answer() -> None:
    document = {"http_options": {"host": "0.0.0.0"}, "applications": [SHOP, OURS]}
    said = told_start(Path("serve.yaml"), document)
    assert said.endswith("when http://127.0.0.1:8000/credit/v2/health/ready does")
    assert told_start(Path("serve.yaml"), {"applications": [SHOP]}) == "serve.yaml is starting"
