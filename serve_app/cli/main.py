"""The command ``treeline``: finds the command's module, and turns errors into exit codes.

Every command takes ``--json`` and exits 0 when all is good, 1 on a finding, 2 on misuse.

A command lives in a module of its own with a ``typer.Typer`` called ``app``, and a line in
``COMMANDS``. A module is imported only when its command is called, so ``treeline --help`` stays
quick whatever the commands need. An app with one command and no callback becomes ``treeline NAME
OPTIONS`` with its function's docstring as help; any other becomes a group, ``treeline NAME COMMAND
OPTIONS``.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final, NoReturn, cast

import typer

from autoscaling.errors import AutoscalingError
from monitoring.errors import FrameCorrupt, MonitoringError
from serve_app.cli.exit_codes import FINDING, GOOD, MISUSE
from serve_app.errors import (
    BundleInvalid,
    BundleNameInvalid,
    BundleTampered,
    BundleUnbuildable,
    TreelineError,
)

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "bundle": ("serve_app.cli.bundle", "Create, verify and show model bundles."),
    "serve": ("serve_app.cli.serve", "Run a Serve config on this machine."),
    "deploy": ("serve_app.cli.deploy", "Change a running application, once its config is checked."),
    "ledger": ("serve_app.cli.ledger", "Prove that the log is whole."),
    "drift": ("serve_app.cli.drift", "Compare a window of traffic with the training rows."),
    "alerts": ("serve_app.cli.alerts", "Try the way alerts go."),
    "simulate": ("serve_app.cli.simulate", "Replay traffic against autoscaling policies."),
    "loadtest": ("serve_app.cli.loadtest", "Send a planned load and judge the answers."),
    "compare": ("serve_app.cli.compare", "Compare versions; looking often stays honest."),
    "promote": ("serve_app.cli.promote", "Promote or roll back a version by a written rule."),
    "quality": ("serve_app.cli.quality", "Tell how good the answers are, labels or not."),
    "demo": ("serve_app.cli.demo", "Train and bundle the quickstart's credit model."),
}

# What typer raises for a wrong command line; of the family it exports only this member.
UsageError: Final = cast("type[Exception]", typer.BadParameter.__base__)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; one line on stderr for what went wrong, no traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = build_app(given)(args=given, prog_name="treeline", standalone_mode=False)
    except UsageError as exc:
        _complain_of_usage(exc)
        sys.exit(MISUSE)
    except (TreelineError, MonitoringError, AutoscalingError) as exc:
        _complain(str(exc))
        sys.exit(exit_code(exc))
    except Exception as exc:  # noqa: BLE001  a person at a prompt gets a sentence, even for a bug
        if os.environ.get("TREELINE_TRACEBACK"):
            traceback.print_exc()
        _complain(f"internal error: {type(exc).__name__}: {exc} (TREELINE_TRACEBACK=1 shows where)")
        sys.exit(MISUSE)
    sys.exit(code or GOOD)


def exit_code(error: TreelineError | MonitoringError | AutoscalingError) -> int:
    """Tell a finding, something stored that is not sound, from misuse, which is all the rest."""
    match error:
        case BundleNameInvalid() | BundleUnbuildable():
            return MISUSE
        case BundleTampered() | BundleInvalid() | FrameCorrupt():
            return FINDING
        case _:
            return MISUSE


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """Assemble the command line for these arguments: only the named command is imported."""
    root = typer.Typer(
        help="Run scikit-learn random forests in production.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    root.callback()(_options)
    for name, (module, summary) in COMMANDS.items():
        if name in arguments[:1]:
            _mount(root, name, import_module(module).app, summary)
        else:
            root.command(name, help=summary)(_not_imported)
    return root


def _mount(root: typer.Typer, name: str, app: typer.Typer, summary: str) -> None:
    commands = app.registered_commands
    alone = len(commands) == 1 and not app.registered_groups and not app.registered_callback
    if alone and commands[0].callback is not None:
        root.command(name)(commands[0].callback)
    else:
        root.add_typer(app, name=name, help=summary)


def _not_imported() -> None:
    """Stand in for a command that was not called."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"treeline {version('treeline-serve')}")
        raise typer.Exit(GOOD)


def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def _complain(message: str) -> None:
    """Print one line to stderr, whatever line breaks the message came with."""
    typer.echo(f"treeline: {' '.join(message.split())}", err=True)


def _complain_of_usage(error: Any) -> None:
    """Say what is wrong and where help is; nothing where typer has printed the help itself."""
    message = error.format_message().removeprefix("Invalid value: ")
    if message:
        command = error.ctx.command_path if error.ctx else "treeline"
        _complain(f"{message} (`{command} --help` tells more)")
