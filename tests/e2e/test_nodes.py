"""Two nodes, each with a disk of its own: what a dead node held waits, and is stored at its return.

The second node is a raylet in namespaces of its own: its ``state_dir`` is another folder, mounted
under the same path, and its processes die together, as those of a machine that loses power do. It
never takes a replica again after its return, so only a pinned task can hand over what lies there.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.e2e.application import REPOSITORY, Application, quickstart
from tests.e2e.blows import Target
from tests.e2e.chaos import Cluster, Traffic, audit
from tests.e2e.log import query, verify, wait_for
from tests.e2e.started import started
from tests.monitoring.agent.conftest import STREAM, Agent, delivery

NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def has_namespaces() -> bool:
    return subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.ray,
    pytest.mark.soak,  # a raylet more on two cores: not steady enough for every change
    pytest.mark.timeout(600),
    pytest.mark.skipif(not has_namespaces(), reason="needs the right to make namespaces"),
]


class SecondNode:
    """A raylet that joins an application's cluster, with ``disk`` as its ``state_dir``."""

    def __init__(self, application: Application, disk: Path) -> None:
        self._application = application
        self._disk = disk
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, cpus: int) -> None:
        mount = f'mount --bind "{self._disk}" "{self._application.state}"'
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block"]
        options = {
            "address": self._application.gcs_address,
            "num-cpus": cpus,
            "node-ip-address": "127.0.0.2",
            "object-store-memory": 100 * 1024 * 1024,
        }
        command += [f"--{name}={value}" for name, value in options.items()]
        environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self._application.ray_folder),
            "PYTHONPATH": str(REPOSITORY),
        }
        log = self._application.folder / "second-node.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [*NAMESPACES, "bash", "-c", f'{mount} && exec "$@"', "bash", *command],
                cwd=self._application.folder,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Every process at once: the namespace's first process takes all others along."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Iterator[Application]:
    """At most one replica on each node; HTTP on the first alone, for both share one network."""
    document = quickstart(
        args={
            "model_root": str(demo_root),
            "agent": {"file_max_age_s": 2},
            "serving": {"num_replicas": 2, "num_cpus": 0.1},
        }
    )
    document["proxy_location"] = "HeadOnly"
    document["applications"][0]["deployments"][0]["max_replicas_per_node"] = 1
    with started(Application(tmp_path_factory.mktemp("nodes"), document)) as running:
        yield running


def health(application: Application) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{application.url}/monitor/api/health", timeout=20).json()
    return answer


def nodes_of(application: Application) -> list[dict[str, Any]]:
    return [node for shard in health(application)["shards"] for node in shard["nodes"]]


def is_shown_as_gone(application: Application) -> bool:
    return any(node["replicas"] and not node["alive"] for node in nodes_of(application))


def reporting_replicas(application: Application) -> float:
    text = httpx.get(f"{application.url}/metrics", timeout=20).text
    (line,) = [line for line in text.splitlines() if line.startswith("treeline_replicas ")]
    return float(line.rsplit(" ", 1)[1])


def journals(disk: Path) -> list[Path]:
    return list((disk / "journal").glob("*/stream.json"))


def left_by_an_agent(disk: Path, folder: Path) -> None:
    """Four events that an agent of old has acknowledged on the second node and not stored."""
    old = Agent(folder, epoch="e-old")
    other_model = msgspec.structs.replace(STREAM, model="other")
    old.take(delivery(1, 4, producer="long-gone", stream=other_model))
    old.die()
    (folder / "state").rename(disk)


def unstored(application: Application, traffic: Traffic) -> set[str]:
    return audit(application.sink, traffic).missing


def test_what_a_dead_node_held_is_stored_once_when_it_returns(
    application: Application, tmp_path: Path, body: bytes
) -> None:
    disk = tmp_path / "disk"
    left_by_an_agent(disk, tmp_path / "old")
    second = SecondNode(application, disk)
    cluster = Cluster(application.ray_folder)
    try:
        second.start(cpus=1)
        wait_for(lambda: len(cluster.pids(Target.REPLICA)) == 2, timeout_s=120, what="2 replicas")
        wait_for(lambda: reporting_replicas(application) == 2, timeout_s=60, what="2 reports")
        (agent,) = cluster.pids(Target.AGENT)
        with Traffic(f"{application.url}/predict", body, prefix="n", rate_per_s=60) as traffic:
            traffic.wait_for_answers(200)
            assert journals(disk)
            os.kill(agent, signal.SIGSTOP)  # what comes now waits in both journals
            traffic.wait_for_answers(60)
            second.kill()
            os.kill(agent, signal.SIGCONT)
            traffic.wait_for_answers(100)
            wait_for(
                lambda: is_shown_as_gone(application),
                timeout_s=90,
                what="a node that is shown as gone",
            )
        held = unstored(application, traffic)
        assert held, "nothing waited on the dead node's disk: the test shows nothing"
        assert any("is gone for" in warning for warning in health(application)["warnings"])
        second.start(cpus=0)
        wait_for(
            lambda: not unstored(application, traffic), timeout_s=150, what="every request stored"
        )
        wait_for(lambda: not journals(disk), timeout_s=60, what="an empty journal folder")
        # The last word may be lost; then the node is looked at again after a minute.
        wait_for(lambda: not nodes_of(application), timeout_s=120, what="no node that waits")
    finally:
        second.kill()
    wait_for(lambda: verify(str(application.sink))["ok"], timeout_s=60, what="a closed ledger")
    found = audit(application.sink, traffic)
    assert found.clean, found
    assert verify(str(application.sink))["dropped"] == {}
    rows = query(
        application.sink, "select seq from {log} where producer = 'long-gone' order by seq"
    )
    assert rows == [(1,), (2,), (3,), (4,)]
    print(f"{dict(traffic.outcomes)}, {len(held)} of them on the dead node's disk only")
