"""``treeline alerts``: try whether anybody hears an alarm."""

import os
import time
from typing import Annotated

import typer

from monitoring.live.alerts import Alert
from monitoring.live.errors import WebhookFailed
from monitoring.live.webhook import post
from serve_app.cli.exit_codes import FINDING, GOOD, MISUSE
from serve_app.cli.output import AsJson, print_json

WEBHOOK_ENV = "TREELINE_ALERT_WEBHOOK"

app = typer.Typer()


@app.callback()
def group() -> None:
    """Make ``test`` a command of its own, though it is the only one."""


@app.command()
def test(
    env: Annotated[
        str, typer.Option(help="Environment variable that holds the webhook's URL.")
    ] = WEBHOOK_ENV,
    as_json: AsJson = False,
) -> None:
    """Post a test alarm to the webhook. Exit code 1 if it is not taken.

    The URL is a secret and therefore no option: whoever lists processes would see it.
    """
    url = os.environ.get(env)
    if not url:
        typer.echo(f"environment variable {env} is not set; it holds the webhook's URL", err=True)
        raise typer.Exit(MISUSE)
    now_s = time.time()
    alert = Alert(
        cause="test",
        number=1,
        state="open",
        kind="test",
        text="A test alarm of Treeline; nothing is wrong.",
        link="/monitor/api/alerts",
        since_s=now_s,
        changed_s=now_s,
    )
    problem: str | None = None
    try:
        post(url, alert)
    except WebhookFailed as error:
        problem = str(error)
    if as_json:
        print_json({"delivered": problem is None, "problem": problem})
    else:
        typer.echo(problem or "the webhook took the test alarm")
    raise typer.Exit(GOOD if problem is None else FINDING)
