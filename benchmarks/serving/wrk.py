"""Load from Debian's `wrk`: closed loop, one thread, distinct requests in turn."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SCRIPT: Final = """
local bodies = {
%s
}
local next = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  next = next %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[next])
end
done = function(summary, latency, requests)
  io.write(string.format(
    '\\nRESULT {"requests": %%d, "duration_us": %%d, "p50_us": %%d, "p99_us": %%d, ' ..
    '"refused": %%d, "broken": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


class LoadFailed(Exception):
    """wrk is missing, or some requests were not answered 200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run of wrk saw."""

    connections: int
    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def require_wrk() -> str:
    path = shutil.which("wrk")
    if path is None:
        raise LoadFailed("`wrk` is missing: apt-get install -y wrk")
    return path


def write_script(path: Path, documents: Iterable[object]) -> Path:
    """Write the requests as a Lua script; each is one JSON document."""
    bodies = (json.dumps(document, separators=(",", ":")) for document in documents)
    path.write_text(SCRIPT % "\n".join(f"  [==[{body}]==]," for body in bodies))
    return path


def run_wrk(url: str, script: Path, *, connections: int, seconds: int) -> Load:
    """Load ``url`` for some seconds; LoadFailed when any request was refused or broken."""
    command = [require_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    done = subprocess.run(
        [*command, "-s", str(script), url],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise LoadFailed(f"wrk ended with {done.returncode}: {done.stderr or done.stdout}")
    seen = json.loads(lines[0].removeprefix("RESULT "))
    if seen["refused"] or seen["broken"] or not seen["requests"]:
        raise LoadFailed(f"{url}: {seen}")
    return Load(
        connections=connections,
        requests=seen["requests"],
        requests_per_s=seen["requests"] / seen["duration_us"] * 1e6,
        p50_ms=seen["p50_us"] / 1e3,
        p99_ms=seen["p99_us"] / 1e3,
    )
