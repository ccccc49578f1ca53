"""Finding an application's own processes: Ray names them, and their environment tells whose."""

from pathlib import Path

from tests.e2e.application import Application


def pids_of(application: Application, title: str) -> list[int]:
    """Pids of this application's processes whose command line begins with ``title``."""
    session = str(application.ray_folder).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # gone meanwhile
        if command.startswith(title.encode()) and session in environment:
            found.append(int(entry.name))
    return sorted(found)
