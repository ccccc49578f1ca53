"""How long a new replica takes, from the start of its process to its first answer.

A replica of a running application is killed, and Ray Serve puts another in its place, round after
round; all parts of the cluster are up, the model's stored scorer is there. Its answer is the first
200 through HAProxy, which has to be told of the new replica first, so a little later than Ray Serve
calls it healthy. A worker that Ray held in reserve is counted from the kill. How the time divides,
each replica says in its log ("replica built, ...").

    python -m benchmarks.replica_start [--rounds 5]
"""

import argparse
import http.client
import json
import os
import signal
import statistics
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.serving.contenders import CONTENDERS, SHAPES
from benchmarks.serving.measure import FOLDER
from benchmarks.serving.model import ServedModel, prepare_model
from benchmarks.serving.server import Launch, Server, birth, kind_of

ANSWER_TIMEOUT_S: Final = 120.0


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
    return {"kill to process": began_s - killed_s, "process to answer": answered_s - began_s}


def wait_for_answer(url: str, probe: bytes) -> float:
    request = urllib.request.Request(url, data=probe, headers={"Content-Type": "application/json"})
    deadline = boot_clock_s() + ANSWER_TIMEOUT_S
    while boot_clock_s() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return boot_clock_s()
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
    raise RuntimeError(f"{url} did not answer within {ANSWER_TIMEOUT_S:.0f} s")


def table(rounds: Sequence[Mapping[str, float]]) -> list[str]:
    """Medians over the rounds with the range, as Markdown.

    >>> table([{"answers": 4.0}, {"answers": 5.0}])[-1]
    '| 4.50 (4.00 to 5.00) |'
    """
    columns = list(rounds[0])
    cells = []
    for column in columns:
        figures = [each[column] for each in rounds]
        cells.append(f"{statistics.median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})")
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", f"| {' | '.join(cells)} |"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = prepare_model(FOLDER.absolute() / "model")
    launch = launch_of(model)
    with Server(launch) as server:
        time.sleep(2)
        rounds = [replace(server, launch.probe) for _ in range(options.rounds)]
    print(f"Seconds, medians of {len(rounds)} rounds (lowest to highest):")
    print()
    print("\n".join(table(rounds)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
