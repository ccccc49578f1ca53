"""Two ways of serving one model in one cluster, loaded in turn: what the second costs a caller.

Both applications stand behind one HAProxy, one replica each, under ``/off`` and ``/on``; ``wrk``
loads them in short rounds whose order alternates, so that a busy machine hits both alike. Each
figure is the median over rounds of the ratio on / off. Beside it the same for off against off (two
halves of a round), which shows the noise of the machine. Needs ``wrk`` (Debian package).
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from serve_app.demo import read_credit, request_rows
from tests.e2e.application import Application, merge, quickstart
from tests.e2e.log import wait_for

SETTLE_S = 10  # what starts beside the replicas, as the fit of baselines, must be over
LUA = """
wrk.method = "POST"
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
local pause_ms = {pause_ms}
if pause_ms > 0 then
  delay = function() return math.random(0, 2 * pause_ms) end
end
done = function(summary, latency, requests)
  local errors = summary.errors
  local bad = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('RESULT {{"rate": %f, "p50_ms": %f, "p99_ms": %f, "bad": %d}}',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, bad))
end
"""


@dataclass(frozen=True)
class Run:
    """One run of the load generator; ``rate`` in requests per second."""

    rate: float
    p50_ms: float
    p99_ms: float
    bad: int


@dataclass(frozen=True)
class Round:
    """Off, on and off again, or the other way round."""

    off: Run
    on: Run
    off_again: Run


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """Closed loop; every connection pauses between requests for ``pause_ms`` in the mean."""

    connections: int
    seconds: int
    rounds: int
    pause_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one of the applications differs by from the quickstart."""

    args: Mapping[str, Any]
    user_config: Mapping[str, Any] | None = None


class Pair:
    """A running cluster with both applications."""

    def __init__(self, folder: Path, application: Application) -> None:
        self._folder = folder
        self.url = application.url

    def metrics(self, name: str) -> list[str]:
        return httpx.get(f"{self.url}/{name}/metrics", timeout=30).text.splitlines()

    def load(self, plan: LoadPlan) -> list[Round]:
        def once(name: str) -> Run:
            return _measure(f"{self.url}/{name}/predict", script, plan)

        script = self._folder / "post.lua"
        body = msgspec.json.encode({"instances": request_rows(read_credit(), 1)}).decode()
        script.write_text(LUA.format(body=json.dumps(body), pause_ms=plan.pause_ms))
        once("off")
        once("on")  # both warm
        rounds = []
        for turn in range(plan.rounds):
            off, on, again = once("off"), once("on"), once("off")
            rounds.append(Round(off, on, again) if turn % 2 else Round(again, on, off))
        return rounds


@contextmanager
def running(models: Path, off: Side, on: Side) -> Iterator[Pair]:
    """Start both, and end them with all they began."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="treeline-bench-") as name:
        folder = Path(name)
        document = _document(folder, models, {"off": off, "on": on})
        application = Application(folder, document, ready_path="/on")
        try:
            application.start()
            ready = f"{application.url}/off/v2/health/ready"
            wait_for(lambda: httpx.get(ready).status_code == 200, timeout_s=60, what=ready)
            time.sleep(SETTLE_S)
            yield Pair(folder, application)
        finally:
            application.stop()


def _document(folder: Path, models: Path, sides: Mapping[str, Side]) -> dict[str, Any]:
    base = quickstart(args={"model_root": str(models), "env": "bench"})
    one = base["applications"][0]
    both = []
    for name, side in sides.items():
        args = {
            "sink": str(folder / name / "sink"),
            "state_dir": str(folder / name / "state"),
            "agent": {"file_max_age_s": 60},
            "serving": {"num_cpus": 0.1},
        }
        changes = {
            "name": name,
            "route_prefix": f"/{name}",
            "args": merge(merge(one["args"], args), side.args),
        }
        if side.user_config is not None:
            deployment = one["deployments"][0]
            whole = merge(deployment.get("user_config", {}), side.user_config)
            changes["deployments"] = [deployment | {"user_config": whole}]
        both.append(one | changes)
    return base | {"applications": both}


def _measure(url: str, script: Path, plan: LoadPlan) -> Run:
    command = ["wrk", "-t1", f"-c{plan.connections}", f"-d{plan.seconds}s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    run = Run(**json.loads(done.stdout.split("RESULT ")[1]))
    if run.bad:
        raise SystemExit(f"{url}: {run.bad} requests failed\n{done.stdout}")
    return run


def print_table(rounds: list[Round]) -> None:
    print(f"{'':14} {'off':>9} {'on':>9} {'on / off':>9} {'off / off':>10}   (medians)")
    for name, unit in (("rate", "1/s"), ("p50_ms", "ms"), ("p99_ms", "ms")):
        offs = [getattr(r.off, name) for r in rounds]
        agains = [getattr(r.off_again, name) for r in rounds]
        ons = [getattr(r.on, name) for r in rounds]
        # Before and after `on`: what drifts over a round cancels out.
        ratios = [2 * on / (a + b) for a, on, b in zip(offs, ons, agains, strict=True)]
        noise = [a / b for a, b in zip(offs, agains, strict=True)]
        print(
            f"{name + ' ' + unit:14} {statistics.median(offs + agains):9.2f}"
            f" {statistics.median(ons):9.2f} {statistics.median(ratios):9.3f}"
            f" {statistics.median(noise):10.3f}   ({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )


def total(lines: list[str], name: str, **labels: str) -> float:
    """Sum up the samples of a metric that carry the labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith(name) and all(label in line for label in wanted)
    )
