"""The command line's skeleton: quick help, exit codes, no traceback."""

import subprocess
import sys

import pytest
import typer

from monitoring.errors import FrameCorrupt, SinkUnavailable
from serve_app.cli import main as command_line
from serve_app.errors import (
    BundleInvalid,
    BundleNameInvalid,
    BundleNotFound,
    BundleTampered,
    BundleUnbuildable,
    TreelineError,
)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    return ended.value.code or 0


def test_help_names_every_command(capsys):
    assert run("--help") == 0
    printed = capsys.readouterr().out
    for name in command_line.COMMANDS:
        assert name in printed


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("treeline ")


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from serve_app.cli.main import build_app; build_app(['--help']);"
        "print([m for m in ('ray', 'sklearn', 'pandas', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_every_command_has_help(name, capsys):
    assert run(name, "--help") == 0
    assert f"treeline {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fooo",), "No such command 'fooo'. (`treeline --help` tells more)"),
        (("bundle", "burn"), "No such command 'burn'. (`treeline bundle --help` tells more)"),
        (("compare", "--unit", "foo"), "Invalid value for '--unit': "),
        (("compare", "--nonsense"), "No such option: --nonsense"),
        (("bundle", "show"), "Missing argument 'PATH'."),
        (
            ("drift",),
            "give --baseline and --window, or --sink and --model (`treeline drift --help`",
        ),
    ],
)
def test_misuse_is_one_line(arguments, said, capsys):
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"treeline: {said}")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("bundle",)])
def test_without_a_command_there_is_help(arguments, capsys):
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert "Usage: treeline" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BundleTampered(file="f", expected="a", found="b"), 1),
        (BundleInvalid(), 1),
        (FrameCorrupt(), 1),
        (BundleUnbuildable(), 2),
        (BundleNameInvalid(), 2),
        (BundleNotFound(), 2),
        (TreelineError(), 2),
        (SinkUnavailable(), 2),
    ],
)
def test_findings_are_what_is_stored_and_not_sound(error, code):
    assert command_line.exit_code(error) == code


def test_an_app_with_one_command_is_a_command(monkeypatch, capsys):
    app = typer.Typer()

    @app.command()
    def trace(path: str) -> None:
        if path == "bug":
            raise KeyError(path)
        if path == "error":
            raise TreelineError("two\nlines")
        typer.echo(path)

    module = type(sys)("commands_of_this_test")
    module.app = app
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(command_line.COMMANDS, "trace", (module.__name__, "Trace."))
    assert run("trace", "here") == 0
    assert capsys.readouterr().out == "here\n"
    assert run("trace", "error") == 2
    assert capsys.readouterr().err == "treeline: two lines\n"
    assert run("trace", "bug") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("treeline: internal error: KeyError: 'bug'")
    assert printed.count("\n") == 1
