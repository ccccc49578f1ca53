"""Finding an application's own processes: Ray names them, and their environment tells whose."""

import ipaddress
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


def listening() -> set[tuple[str, int]]:
    """Address and port of every TCP socket of this machine that listens, IPv4 and IPv6."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, _, port = local.partition(":")
                found.add((_address(address), int(port, 16)))
    return found


def _address(text: str) -> str:
    """An address as the kernel prints it: 32-bit words in the machine's byte order."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address)
