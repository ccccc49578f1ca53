"""One running contender: started in a session and folders of its own, and ended with all it began.

Ray's processes leave their parent's process group, so the whole tree is followed through /proc and
what survives a Ctrl-C is killed by its own process id.
"""

import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

REPOSITORY: Final = Path(__file__).parents[2]
PEERS: Final = Path(__file__).with_name("peers")
QUICKSTART: Final = REPOSITORY / "configs/quickstart.yaml"
STOP_TIMEOUT_S: Final = 60


class NotStarted(Exception):
    """The contender ended or did not answer in time; the message has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start it. ``command`` and ``files`` may name {port}, {folder} and {python}."""

    python: Path
    command: tuple[str, ...]
    serve_config: Mapping[str, Any] | None
    variables: Mapping[str, str]
    files: Mapping[str, str]
    probe: bytes  # a request that must be answered 200
    path: str
    timeout_s: float
    ingress: Path = QUICKSTART  # the Serve config whose ingress is taken


class Server:
    """Context manager: started on entry, gone with everything it started on exit."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._folder = Path(tempfile.mkdtemp(prefix="tb-"))  # sockets need short paths
        self._log = self._folder / "server.log"
        self._known: dict[int, str] = {}
        self.port = free_port()
        self.grpc_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{launch.path}"
        self.start_s = 0.0

    def __enter__(self) -> Self:
        launch = self._launch
        names = {
            "port": str(self.port),
            "folder": str(self._folder),
            "python": str(launch.python),
            "model_root": launch.variables.get("BENCH_MODEL_ROOT", ""),
        }
        for name, text in launch.files.items():
            for key, value in names.items():
                text = text.replace("{" + key + "}", value)  # noqa: PLW2901  JSON has braces
            (self._folder / name).write_text(text)
        command = [part.format(**names) for part in launch.command]
        if launch.serve_config is not None:
            config = self._folder / "serve.yaml"
            config.write_text(yaml.safe_dump(self._serve_document(names)))
            command = [str(launch.python.with_name("serve")), "run", str(config)]
        began = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=PEERS if launch.serve_config is None else self._folder,
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(began + launch.timeout_s)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - began
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """Where it runs, with Ray's session and logs."""
        return self._folder

    def processes(self) -> list[int]:
        """Ids of all its processes that live."""
        self._known |= tree(self._process.pid)
        return [pid for pid, born in self._known.items() if birth(pid) == born]

    def memory_mb(self) -> float:
        """Resident memory of every process of this server, shared pages counted once (PSS)."""
        self._known |= tree(self._process.pid)
        return sum(proportional_kb(pid) for pid in self._known) / 1024

    def cpu_s(self) -> Counter[str]:
        """Processor seconds so far, by kind of process: see ``kind_of``."""
        self._known |= tree(self._process.pid)
        spent: Counter[str] = Counter()
        for pid in self._known:
            fields = stat_fields(pid)
            if fields:
                ticks = int(fields[11]) + int(fields[12])
                spent[kind_of(pid)] += ticks / os.sysconf("SC_CLK_TCK")
        return spent

    def stop(self) -> None:
        self._known |= tree(self._process.pid)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        for pid, born in self._known.items():
            if birth(pid) == born:  # still the very process that we saw
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self, deadline: float) -> None:
        request = urllib.request.Request(
            self.url, data=self._launch.probe, headers={"Content-Type": "application/json"}
        )
        last = "no answer yet"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise NotStarted(f"it ended:\n{self._tail()}")
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    answer.read()
                    return
            except urllib.error.HTTPError as exc:
                last = f"{exc.code}: {exc.read()[:500]!r}"
            except (OSError, http.client.HTTPException) as exc:
                last = str(exc)
            time.sleep(0.05)
        raise NotStarted(f"no 200 in {self._launch.timeout_s:.0f} s ({last}):\n{self._tail()}")

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3_000:]

    def _environment(self) -> dict[str, str]:
        home = self._launch.python.parent
        paths = [str(PEERS), str(REPOSITORY)]
        return {
            **os.environ,
            "PATH": f"{home}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self._folder),
            "RAY_raylet_start_wait_time_s": "120",  # 30 is too little on a busy machine
            "RAY_worker_niceness": "0",  # Ray lowers its workers' priority; peers have theirs whole
            "BENCH_PORT": str(self.port),
            **self._launch.variables,
        }

    def _serve_document(self, names: Mapping[str, str]) -> dict[str, Any]:
        """A shipped config's ingress around this application, with HAProxy's files kept apart."""
        document: dict[str, Any] = yaml.safe_load(self._launch.ingress.read_text())
        document["http_options"]["port"] = self.port
        if "grpc_options" in document:
            document["grpc_options"]["port"] = self.grpc_port
        haproxy = self._folder / "haproxy"
        haproxy.mkdir()
        document["controller_options"]["runtime_env"]["env_vars"] |= {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
            **ingress_ports(),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        }
        document["applications"] = [filled(self._launch.serve_config, names)]
        return document


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """Put ``names`` into every text of a nested document."""
    match value:
        case str():
            return value.format(**names)
        case Mapping():
            return {key: filled(item, names) for key, item in value.items()}
        case list():
            return [filled(item, names) for item in value]
    return value


def ingress_ports() -> dict[str, str]:
    """Ports for the replicas and the fallback proxy of this cluster alone.

    Ray opens its own with SO_REUSEPORT: a cluster that still goes down would answer for this one.
    """
    first = 12_000 + 100 * random.randrange(80)
    return {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(first),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(first + 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first + 2),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 49),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(first + 50),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(first + 99),
    }


def free_port() -> int:
    """A port that nobody has, between those that Ray's workers and the system give out."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def tree(root: int) -> dict[int, str]:
    """Process ids below ``root``, itself included, with their times of birth."""
    children: dict[int, list[int]] = {}
    births: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        fields = stat_fields(int(entry.name))
        if fields:
            births[int(entry.name)] = fields[19]
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in births and pid not in found:
            found[pid] = births[pid]
            waiting += children.get(pid, [])
    return found


def birth(pid: int) -> str | None:
    fields = stat_fields(pid)
    return fields[19] if fields else None


def stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on, None when the process is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields


def kind_of(pid: int) -> str:
    """What a process does for a request, by its title; peers' servers are replicas too."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "rest"
    if title.startswith("ray::MonitoringAgent"):
        return "agent"
    if " monitoring.live.process" in title:
        return "live"
    if "bin/haproxy " in title:
        return "proxy"
    ray_process = title.startswith("ray::") or "/ray/" in title or "bin/serve run" in title
    return "rest" if ray_process and not title.startswith("ray::ServeReplica") else "replica"


def proportional_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if sys.platform != "linux":
    raise ImportError("benchmarks.serving reads /proc: it runs on Linux only")
