"""``treeline ledger``: prove that every event is on storage, and only once."""

from typing import Annotated

import msgspec
import typer

from monitoring.agent.settings import SinkSettings
from monitoring.agent.verify import Verdict
from monitoring.agent.verify import verify as verify_sink
from monitoring.errors import SinkUnavailable

GOOD, FINDING, MISUSE = 0, 1, 2

app = typer.Typer(help="Prove that every event is on storage, and only once.")


@app.callback()
def group() -> None:
    """Make ``verify`` a command of its own, though it is the only one."""


@app.command()
def verify(
    sink: Annotated[str, typer.Argument(help="Folder, s3://bucket/prefix or gs://bucket/prefix.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check ids and accounts, not every column's checksum.")
    ] = False,
    endpoint_url: Annotated[
        str | None, typer.Option(help="S3 endpoint; else AWS_ENDPOINT_URL, else AWS.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="S3 region.")] = None,
) -> None:
    """Prove from the stored files that no event is missing or doubled. Exit code 1 if one is.

    Credentials come from the environment, as the storage's own client reads them.
    """
    settings = SinkSettings(url=sink, endpoint_url=endpoint_url, region=region)
    try:
        verdict = verify_sink(settings, quick=quick)
    except SinkUnavailable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(MISUSE) from error
    typer.echo(msgspec.json.encode(verdict).decode() if as_json else _as_text(verdict))
    raise typer.Exit(GOOD if verdict.ok else FINDING)


def _as_text(verdict: Verdict) -> str:
    lines = [
        f"{verdict.received} events of {verdict.producers} producers: {verdict.written} written, "
        f"{verdict.sampled_out} sampled out, {sum(verdict.dropped.values())} dropped"
    ]
    lines.extend(f"  dropped, {reason}: {count}" for reason, count in verdict.dropped.items())
    lines.extend(
        f"  {p.kind}: producer {p.producer or '?'}, {p.first} to {p.last} {p.file}".rstrip()
        for p in verdict.problems
    )
    lines.append("ok" if verdict.ok else f"{len(verdict.problems)} problems")
    return "\n".join(lines)
