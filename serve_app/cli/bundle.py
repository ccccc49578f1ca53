"""``treeline bundle``: create, verify and show model bundles."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.output import AsJson, print_json, print_table
from serve_app.model.manifest import FeatureSpec, Manifest
from serve_app.model.storage import BundleFolder
from serve_app.model.verify import read_manifest, verify_bundle

app = typer.Typer(no_args_is_help=True)

BundlePath = Annotated[
    str, typer.Argument(metavar="PATH", help="The bundle's folder: ROOT/NAME/VERSION.")
]
StorageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option",
        metavar="KEY=VALUE",
        help="Passed to fsspec, e.g. endpoint_url=http://host:8333; repeatable. "
        "Keep secrets in the environment (AWS_ACCESS_KEY_ID, ...).",
    ),
]


@app.command()
def create(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.joblib",
            exists=True,
            dir_okay=False,
            help="A fitted forest, or a pipeline that ends in one. It is unpickled: trust it.",
        ),
    ],
    *,
    train: Annotated[str, typer.Option(help="The training data, Parquet or CSV.")],
    label: Annotated[str, typer.Option(help="The column with the true labels.")],
    name: Annotated[str, typer.Option(help="The model's name.")],
    version: Annotated[str, typer.Option(help="This bundle's version, which never changes.")],
    out: Annotated[str, typer.Option(help="The root: a folder, s3://... or gs://...")],
    test: Annotated[str | None, typer.Option(help="Held-out data for test_* metrics.")] = None,
    feature_set_version: Annotated[str, typer.Option(help="Version of the inputs.")] = "1",
    force: Annotated[bool, typer.Option("--force", help="Replace a version.")] = False,
    storage_option: StorageOption = None,
    as_json: AsJson = False,
) -> None:
    """Bundle a fitted model with its training data's profile."""
    from serve_app.model.build import Identity, LabelledData, build_bundle
    from serve_app.model.bundle import store_bundle
    from serve_app.model.datafile import read_datafile
    from serve_app.model.estimator import unpickle_model

    options = parse_storage_options(storage_option)
    identity = Identity(name=name, version=version, feature_set_version=feature_set_version)
    typer.echo(f"{model} is unpickled, which runs the code in it: trust where it is from", err=True)
    model_bytes = model.read_bytes()
    staged = build_bundle(
        identity,
        model_bytes=model_bytes,
        unpickled=unpickle_model(model_bytes, source=str(model)),
        train=LabelledData(frame=read_datafile(train), label=label),
        test=None if test is None else read_datafile(test),
        created_at=datetime.now(UTC),
    )
    url = store_bundle(out, staged, force=force, storage_options=options)
    if as_json:
        print_json({"path": url, "manifest": staged.manifest})
    else:
        typer.echo(f"bundled {name} {version} at {url}")


@app.command()
def verify(path: BundlePath, storage_option: StorageOption = None, as_json: AsJson = False) -> None:
    """Hold a bundle's files against its manifest; the model is not unpickled."""
    problems = verify_bundle(path, storage_options=parse_storage_options(storage_option))
    if as_json:
        print_json({"ok": not problems, "path": path, "problems": problems})
    elif problems:
        print_table(
            f"{path} is not sound",
            ["problem", "file", "detail"],
            [(problem.kind, problem.file, problem.detail) for problem in problems],
        )
    else:
        typer.echo(f"{path} is sound")
    if problems:
        raise typer.Exit(1)


@app.command()
def show(path: BundlePath, storage_option: StorageOption = None, as_json: AsJson = False) -> None:
    """Print what a bundle's manifest says; nothing is checked, see verify."""
    options = parse_storage_options(storage_option)
    manifest = read_manifest(BundleFolder.at(path, storage_options=options))
    if as_json:
        print_json(manifest)
        return
    print_table(
        f"{manifest.name} {manifest.version}",
        ["", ""],
        [
            ("task", manifest.task),
            ("classes", ", ".join(manifest.classes) or None),
            ("feature set", manifest.feature_set_version),
            ("scikit-learn", manifest.sklearn_version),
            ("created", manifest.created_at.isoformat(sep=" ", timespec="seconds")),
            *((key, _rounded(value)) for key, value in manifest.training_metrics.items()),
        ],
    )
    print_table("features", ["name", "type", "missing", "values"], _feature_rows(manifest))


def parse_storage_options(pairs: list[str] | None) -> dict[str, str]:
    """Read ``KEY=VALUE`` pairs.

    >>> parse_storage_options(["endpoint_url=http://127.0.0.1:8333"])
    {'endpoint_url': 'http://127.0.0.1:8333'}
    """
    options: dict[str, str] = {}
    for pair in pairs or []:
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise typer.BadParameter(f"--storage-option {pair!r}: KEY=VALUE is needed")
        options[key] = value
    return options


def _feature_rows(manifest: Manifest) -> list[tuple[object, ...]]:
    return [
        (feature.name, feature.dtype, "allowed" if feature.nullable else None, _range(feature))
        for feature in manifest.features
    ]


def _range(feature: FeatureSpec) -> str | None:
    if feature.categories is not None:
        listed = ", ".join(feature.categories[:4])
        more = len(feature.categories) - 4
        return f"{listed} and {more} more" if more > 0 else listed
    if feature.min is None or feature.max is None:
        return None
    return f"{_rounded(feature.min)} to {_rounded(feature.max)}"


def _rounded(value: int | float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"
