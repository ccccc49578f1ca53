import pytest

from serve_app.cli.main import main


@pytest.fixture
def treeline(capsys):
    """Run the command line; answer (exit code, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run
