"""``treeline deploy``: change a running application."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from serve_app.errors import TreelineError
from serve_app.serve_config import read_checked

app = typer.Typer()

DASHBOARD: Final = "http://127.0.0.1:8265"
TOKEN: Final = Path("~/.ray/auth_token").expanduser()


class DeployFailed(TreelineError):
    """`serve deploy` refused the config, or the cluster was not reached."""


@app.command()
def deploy(
    config: Annotated[Path, typer.Argument(help="A Serve config file.")],
    address: Annotated[str, typer.Option(help="Ray's dashboard.")] = DASHBOARD,
) -> None:
    """Check CONFIG, then ``serve deploy`` it to a running cluster with this user's token."""
    read_checked(config)
    serve_deploy(config, address)
    typer.echo(f"{config} is sent to {address}; `serve status` says how far it is")


def serve_deploy(config: Path, address: str) -> None:
    """Run `serve deploy`. Raises DeployFailed with what it said last."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("serve")), "deploy", "-a", address, str(config)],
        env={**authentication(), **os.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise DeployFailed(f"{config} is not deployed: {said[-1]}")


def authentication() -> dict[str, str]:
    """What makes Ray send this user's token, as a cluster that `serve run` has started wants it."""
    return {"RAY_AUTH_MODE": "token"} if TOKEN.exists() else {}
