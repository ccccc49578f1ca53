"""Start and stop a real application the way a person does: `serve run CONFIG` in a folder."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e.log import wait_for

REPOSITORY = Path(__file__).parents[2]
QUICKSTART = REPOSITORY / "configs/quickstart.yaml"
START_TIMEOUT_S = 300.0


def free_port() -> int:
    """A port below those that outgoing connections get: one of them could take it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(30_500, 32_700)
        if is_free(port):
            return port


def ingress_ports() -> dict[str, str]:
    """Ports for the replicas and the fallback proxy of this cluster alone.

    Ray's own (30000 and up, 8500) are opened with SO_REUSEPORT: two clusters on one machine share
    them without a word, and answer each other's requests.
    """
    while True:
        first = 12_000 + 500 * random.SystemRandom().randrange(36)
        if all(is_free(port) for port in range(first, first + 8)):
            break
    return {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(first),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(first + 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first + 2),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 400),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(first + 400),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(first + 500),
    }


def is_free(port: int) -> bool:
    with socket.socket() as listener:
        return listener.connect_ex(("127.0.0.1", port)) != 0


def merge(base: Any, changes: Mapping[str, Any]) -> Any:
    """Change a nested mapping key by key."""
    if not isinstance(base, dict):
        return dict(changes)
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = merge(base.get(key), value) if isinstance(value, Mapping) else value
    return merged


def quickstart(
    *, args: Mapping[str, Any], user_config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The shipped quickstart with changed `args`, on ports and in folders of its own."""
    document: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())
    application = document["applications"][0]
    application["args"] = merge(application["args"], args)
    if user_config is not None:
        application["deployments"][0]["user_config"] = dict(user_config)
    return document


class NodeTimedOutError(AssertionError):
    """Ray's node did not start in the time Ray gives it."""


@dataclass
class Application:
    """A running `serve run`, and what belongs to it."""

    folder: Path
    document: dict[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_path: str = ""  # route prefix of the application to wait for

    def __post_init__(self) -> None:
        self.port = free_port()
        self.grpc_port = free_port()
        self._replica_ports = 20_000 + 50 * random.randrange(200)
        self._short = Path(tempfile.mkdtemp(prefix="tl-"))  # sockets need short paths
        self._process: subprocess.Popen[bytes] | None = None
        self.config = self.folder / "serve.yaml"
        self.log = self.folder / "serve.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_ports(self) -> dict[int, str]:
        """Which part may take gRPC on a port."""
        name = "RAY_SERVE_DIRECT_INGRESS_{}_GRPC_PORT"
        first, last = (int(self._ingress[name.format(end)]) for end in ("MIN", "MAX"))
        fallback = int(self._ingress["RAY_SERVE_FALLBACK_PROXY_GRPC_PORT"])
        replicas = dict.fromkeys(range(first, last + 1), "replica")
        return {**replicas, fallback: "fallback proxy", self.grpc_port: "haproxy"}

    @property
    def sink(self) -> Path:
        return self.folder / ".treeline/sink"

    @property
    def state(self) -> Path:
        return self.folder / ".treeline/state"

    def write_config(self) -> None:
        self.document["http_options"]["port"] = self.port
        if "grpc_options" in self.document:
            self.document["grpc_options"]["port"] = self.grpc_port
        haproxy = self._short / "haproxy"
        haproxy.mkdir(exist_ok=True)
        variables = self.document["controller_options"]["runtime_env"]["env_vars"]
        variables |= {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
            # Replicas of two clusters must not meet on the ports that HAProxy sends to.
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(self._replica_ports),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(self._replica_ports + 49),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        }
        self.config.write_text(yaml.safe_dump(self.document, sort_keys=False))

    def start(self) -> None:
        """Start and wait until it answers.

        Ray gives its own node 30 s to come up, which a busy machine may not keep: then once more.
        """
        self.write_config()
        try:
            self._launch()
        except NodeTimedOutError:
            self._launch()

    def _launch(self) -> None:
        self._ingress = ingress_ports()
        environment = {
            **os.environ,
            **self.environment,
            **self._ingress,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self._short),
            "RAY_worker_niceness": "0",  # tests share the machine with their own load
            "PYTHONPATH": str(REPOSITORY),  # this checkout, whatever the environment has installed
        }
        command = [str(Path(sys.executable).with_name("serve")), "run", str(self.config)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                if "node timed out during startup" in self.tail():
                    raise NodeTimedOutError(self.tail())
                raise AssertionError(f"serve run ended:\n{self.tail()}")
            try:
                if (
                    httpx.get(f"{self.url}{self.ready_path}/v2/health/ready", timeout=2).status_code
                    == 200
                ):
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"not ready after {START_TIMEOUT_S} s:\n{self.tail()}")

    def tail(self) -> str:
        return self.log.read_text()[-6_000:] if self.log.exists() else ""

    @property
    def ray_folder(self) -> Path:
        """Temporary folder of this application's own cluster."""
        return self._short

    @property
    def gcs_address(self) -> str:
        """Where this cluster's control store listens, as its own session folder tells.

        Ray's ``auto`` takes any cluster of the machine: the first that the process table shows.
        """
        session = self._short / "ray/session_latest"
        (port,) = {file.read_text() for file in session.glob("gcs_server_port_*")}
        return f"127.0.0.1:{port}"

    def python(self, code: str, timeout_s: float = 60) -> str:
        """Run a driver against this cluster and return what it printed.

        `serve run` turns tokens on for its cluster; whoever names its address has to say so too.
        """
        environment = {
            **os.environ,
            "RAY_ADDRESS": self.gcs_address,
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self._short),
            "PYTHONPATH": str(REPOSITORY),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4_000:]
        return done.stdout

    @property
    def dashboard(self) -> str:
        """Address of Ray's dashboard, as `serve run` printed it."""
        found = re.search(r"dashboard at .*?(http://[\d.]+:\d+)", self.log.read_text())
        assert found is not None, self.tail()
        return found[1]

    def deploy(self, document: Mapping[str, Any]) -> None:
        """`serve deploy`, and wait until the application runs as written."""
        config = self.folder / "release.yaml"
        config.write_text(yaml.safe_dump(dict(document), sort_keys=False))
        self._serve("deploy", "-a", self.dashboard, str(config))

        def running() -> bool:
            printed = self._serve("status", "-a", self.dashboard)
            status = yaml.safe_load(printed)["applications"]["treeline"]["status"]
            assert status != "DEPLOY_FAILED", printed
            return bool(status == "RUNNING")

        wait_for(running, timeout_s=240, what="the new release")

    def _serve(self, *arguments: str) -> str:
        serve = str(Path(sys.executable).with_name("serve"))
        environment = {**os.environ, "RAY_AUTH_MODE": "token"}
        done = subprocess.run(
            [serve, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout

    def stop(self) -> None:
        """End it as Ctrl-C does; what does not go by itself is ended by its process group."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            raise AssertionError(f"Ctrl-C took over 60 s:\n{self.tail()}") from None
        finally:
            self._process = None
