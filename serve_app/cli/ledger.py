"""``treeline ledger``: prove that every event is on storage, and only once."""

from typing import Annotated

import typer

from monitoring.agent.settings import SinkSettings
from monitoring.agent.verify import Verdict
from monitoring.agent.verify import verify as verify_sink
from serve_app.cli.exit_codes import FINDING, GOOD
from serve_app.cli.log_options import EndpointUrl
from serve_app.cli.output import AsJson, counted, print_json

app = typer.Typer()


@app.callback()
def group() -> None:
    """Make ``verify`` a command of its own, though it is the only one."""


@app.command()
def verify(
    sink: Annotated[str, typer.Argument(help="Folder, s3://bucket/prefix or gs://bucket/prefix.")],
    as_json: AsJson = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check ids and accounts, not every column's checksum.")
    ] = False,
    endpoint_url: EndpointUrl = None,
    region: Annotated[str | None, typer.Option(help="S3 region.")] = None,
) -> None:
    """Prove from the stored files that no event is missing or doubled. Exit code 1 if one is.

    Credentials come from the environment, as the storage's own client reads them.
    """
    settings = SinkSettings(url=sink, endpoint_url=endpoint_url, region=region)
    verdict = verify_sink(settings, quick=quick)
    if as_json:
        print_json(verdict)
    else:
        typer.echo(_as_text(verdict))
    raise typer.Exit(GOOD if verdict.ok else FINDING)


def _as_text(verdict: Verdict) -> str:
    lines = [
        f"{counted(verdict.received, 'event')} of {counted(verdict.producers, 'producer')}: "
        f"{verdict.written} written, "
        f"{verdict.sampled_out} sampled out, {sum(verdict.dropped.values())} dropped"
    ]
    lines.extend(f"  dropped, {reason}: {count}" for reason, count in verdict.dropped.items())
    lines.extend(
        f"  {p.kind}: producer {p.producer or '?'}, {p.first} to {p.last} {p.file}".rstrip()
        for p in verdict.problems
    )
    lines.append("ok" if verdict.ok else counted(len(verdict.problems), "problem"))
    return "\n".join(lines)
