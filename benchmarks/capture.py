"""What capture costs a caller: the same model with capture off and on at 100%, over HTTP.

Both applications run in one cluster behind one HAProxy, one replica each; ``wrk`` loads them in
turn, in short rounds whose order alternates, so that a busy machine hits both alike. Each figure is
the median over rounds of the ratio on / off. Beside it the same for off against off (two halves of
a round), which shows the noise of the machine. The CPU per event in the replica is measured by
``benchmarks.capture_cost``, the agent's rate by ``benchmarks.agent``.

    python -m benchmarks.capture [--rounds 9] [--seconds 4] [--connections 8]

Needs ``wrk`` (Debian package) and the demo bundle (``treeline demo``).
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from serve_app.demo import read_credit, request_rows
from tests.e2e.application import REPOSITORY, Application, merge, quickstart
from tests.e2e.log import wait_for

LUA = """
wrk.method = "POST"
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
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


def document(folder: Path, models: Path) -> dict[str, Any]:
    """The quickstart twice: under /off without capture, under /on with all of it."""
    base = quickstart(args={"model_root": str(models), "env": "bench"})
    one = base["applications"][0]
    two = []
    for name, enabled in (("off", False), ("on", True)):
        args = {
            "sink": str(folder / name / "sink"),
            "state_dir": str(folder / name / "state"),
            "capture": {"enabled": enabled},
            "agent": {"file_max_age_s": 60},
            "serving": {"num_cpus": 0.1},
        }
        changes = {"name": name, "route_prefix": f"/{name}", "args": merge(one["args"], args)}
        two.append(one | changes)
    return base | {"applications": two}


def measure(url: str, script: Path, *, seconds: int, connections: int) -> Run:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    run = Run(**json.loads(done.stdout.split("RESULT ")[1]))
    if run.bad:
        raise SystemExit(f"{url}: {run.bad} requests failed\n{done.stdout}")
    return run


def rounds_of(base_url: str, script: Path, arguments: argparse.Namespace) -> list[Round]:
    def once(name: str) -> Run:
        return measure(
            f"{base_url}/{name}/predict",
            script,
            seconds=arguments.seconds,
            connections=arguments.connections,
        )

    once("off")
    once("on")  # both warm
    rounds = []
    for turn in range(arguments.rounds):
        off, on, again = once("off"), once("on"), once("off")
        rounds.append(Round(off, on, again) if turn % 2 else Round(again, on, off))
    return rounds


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
            f" {statistics.median(noise):10.3f}   ({min(ratios):.3f} to {max(ratios):.3f})"
        )


def check_capture(url: str, rounds: list[Round], seconds: int) -> None:
    """A capture that does nothing would be quick: it must have counted the requests."""
    lines = httpx.get(f"{url}/on/metrics", timeout=30).text.splitlines()
    captured = sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("treeline_capture_events_total")
    )
    sent = sum(r.on.rate for r in rounds) * seconds
    print(f"captured {captured:.0f} events, sent at least {sent:.0f}")
    if captured < 0.95 * sent:
        raise SystemExit("capture was not on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--models", type=Path, default=REPOSITORY / ".treeline/models")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="treeline-bench-") as name:
        folder = Path(name)
        body = msgspec.json.encode({"instances": request_rows(read_credit(), 1)}).decode()
        script = folder / "post.lua"
        script.write_text(LUA.format(body=json.dumps(body)))
        application = Application(folder, document(folder, arguments.models), ready_path="/on")
        try:
            application.start()
            off = f"{application.url}/off/v2/health/ready"
            wait_for(lambda: httpx.get(off).status_code == 200, timeout_s=60, what=off)
            rounds = rounds_of(application.url, script, arguments)
            print_table(rounds)
            check_capture(application.url, rounds, arguments.seconds)
        finally:
            application.stop()


if __name__ == "__main__":
    main()
