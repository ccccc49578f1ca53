"""``treeline demo``: the quickstart's model and requests for it."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from serve_app import demo
from serve_app.cli.output import AsJson, print_json
from serve_app.errors import BundleNotFound
from serve_app.model.storage import BundleFolder
from serve_app.model.verify import read_manifest, read_verified

app = typer.Typer()


@app.callback(invoke_without_command=True)
def make(
    context: typer.Context,
    root: Annotated[str, typer.Option(help="Where bundles lie.")] = ".treeline/models",
    version: Annotated[
        str, typer.Option(help=f"Which model: {', '.join(demo.RECIPES)}; see docs/variants.md.")
    ] = demo.VERSION,
    force: Annotated[bool, typer.Option("--force", help="Train and replace.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train and bundle the German credit model, unless a sound bundle is there."""
    if context.invoked_subcommand is not None:
        return
    if version not in demo.RECIPES:
        allowed = ", ".join(demo.RECIPES)
        raise typer.BadParameter(f"--version is {version!r}; allowed: {allowed}")
    folder = BundleFolder(root, demo.NAME, version)
    trained = force or not _is_sound(folder)
    if trained:
        from serve_app.model.bundle import store_bundle

        store_bundle(root, demo.stage_credit(datetime.now(UTC), version), force=force)
    manifest = read_manifest(folder)
    if as_json:
        print_json({"path": folder.url, "trained": trained, "manifest": manifest})
        return
    accuracy = manifest.training_metrics["test_accuracy"]
    done = "trained" if trained else "is there already"
    typer.echo(f"{demo.NAME} {version} {done}: {folder.url} (held-out accuracy {accuracy:.3f})")


def _is_sound(folder: BundleFolder) -> bool:
    """Tell whether the whole bundle is there; a damaged one raises, for a person to decide on."""
    try:
        read_verified(folder)
    except BundleNotFound:
        return False
    return True


@app.command()
def request(
    rows: Annotated[int, typer.Option(min=1, help="How many applicants.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Shuffle the applicants.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a body for POST /predict made of real applicants: one line of JSON in any case."""
    body = {"instances": demo.request_rows(demo.read_credit(), rows, seed=seed)}
    sys.stdout.write(msgspec.json.encode(body).decode() + "\n")
