"""How long a new replica takes, from the start of its process to its first answer.

A replica of a running application is killed, and Ray Serve puts another in its place, round after
round; all parts of the cluster are up, the model's stored scorer is there. "Constructed" is the
replica's own clock, from its log line; "answers" is the first 200 through HAProxy, which has to be
told of the new replica first. A worker that Ray held in reserve is counted from the kill.

    python -m benchmarks.replica_start [--rounds 5]
"""

import argparse
import json
import os
import re
import signal
import statistics
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from benchmarks.serving.contenders import CONTENDERS, SHAPES
from benchmarks.serving.measure import FOLDER
from benchmarks.serving.model import ServedModel, prepare_model
from benchmarks.serving.server import Launch, Server, birth, kind_of

ANSWER_TIMEOUT_S: Final = 120.0
STAGES: Final = re.compile(
    r"since its process began: imported ([\d.]+), model ([\d.]+), ready ([\d.]+)"
)
COLUMNS: Final = ("kill to process", "imported", "model", "constructed", "answers")


def launch_of(model: ServedModel) -> Launch:
    contender = next(each for each in CONTENDERS if each.name == "treeline")
    return Launch(
        python=Path(sys.executable),
        command=(),
        serve_config=contender.serve_config,
        variables={"BENCH_MODEL_ROOT": str(model.root)},
        files={},
        probe=json.dumps(SHAPES["treeline"](model.rows[0])).encode(),
        path="/predict",
        timeout_s=240.0,
    )


def replicas(server: Server) -> set[int]:
    """Process ids of the model's replicas."""
    return {pid for pid in server.processes() if kind_of(pid) == "replica" and is_replica(pid)}


def is_replica(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ServeReplica")
    except OSError:
        return False


def born_s(pid: int) -> float:
    """When a process began, on the clock of the machine's boot."""
    ticks = birth(pid)
    if ticks is None:
        raise RuntimeError(f"process {pid} is gone")
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def boot_clock_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def replace(server: Server, probe: bytes) -> dict[str, float]:
    """Kill the replica and time its successor; seconds since the successor's process began."""
    old = replicas(server)
    killed_s = boot_clock_s()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    answered_s = wait_for_answer(server.url, probe)
    (new,) = replicas(server) - old
    began_s = max(born_s(new), killed_s)
    stages = stages_of(server, new)
    return {
        "kill to process": began_s - killed_s,
        **stages,
        "answers": answered_s - began_s,
    }


def wait_for_answer(url: str, probe: bytes) -> float:
    request = urllib.request.Request(url, data=probe, headers={"Content-Type": "application/json"})
    deadline = boot_clock_s() + ANSWER_TIMEOUT_S
    while boot_clock_s() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return boot_clock_s()
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.02)
    raise RuntimeError(f"{url} did not answer within {ANSWER_TIMEOUT_S:.0f} s")


def stages_of(server: Server, pid: int) -> dict[str, float]:
    """The replica's own account, from the newest log that names it; empty for a reserved worker."""
    logs = sorted(server.folder.rglob("replica_*.log"), key=lambda path: path.stat().st_mtime)
    found = STAGES.findall(logs[-1].read_text()) if logs else []
    if not found:
        return {}
    return dict(zip(COLUMNS[1:4], map(float, found[-1]), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = prepare_model(FOLDER.absolute() / "model")
    launch = launch_of(model)
    with Server(launch) as server:
        time.sleep(2)
        rounds = [replace(server, launch.probe) for _ in range(options.rounds)]
    print("Seconds since the process of the new replica began, medians (lowest to highest)")
    print(f"over {len(rounds)} rounds:")
    print()
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    cells = []
    for column in COLUMNS:
        figures = [each[column] for each in rounds if column in each]
        low, high = min(figures), max(figures)
        cells.append(f"{statistics.median(figures):.2f} ({low:.2f} to {high:.2f})")
    print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
