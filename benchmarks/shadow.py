"""What a shadow costs a caller: the same model alone, and with a shadow of every request.

``side_by_side`` says how the two are measured; both log everything. Three loads: eight connections
flat out, one connection flat out (the replica is idle half of the time), and eight that pause, as
callers do (mostly idle, so nearly all copies are scored).

    python -m benchmarks.shadow [--rounds 9] [--seconds 4]

Needs ``wrk`` (Debian package) and two demo bundles (``treeline demo``, ``treeline demo --version
1.2.0``).
"""

import argparse
from pathlib import Path

from benchmarks.side_by_side import LoadPlan, Pair, Side, print_table, running, total
from tests.e2e.application import REPOSITORY

SHADOW = "1.2.0"
LOADS = {
    "8 connections, flat out": (8, 0),
    "1 connection, flat out": (1, 0),
    "8 connections, each pausing 20 ms": (8, 20),
}


def copies(pair: Pair) -> tuple[float, float]:
    """Count the shadow's answers and the copies that it dropped, so far."""
    lines = pair.metrics("on")
    scored = total(lines, "treeline_requests_total", variant="shadow")
    return scored, total(lines, "treeline_shadow_dropped_requests_total")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--models", type=Path, default=REPOSITORY / ".treeline/models")
    arguments = parser.parse_args()
    traffic = {"traffic": {"shadows": {SHADOW: 1.0}}}
    on = Side(args={"variants": [SHADOW]}, user_config=traffic)
    with running(arguments.models, Side(args={}), on) as pair:
        before = (0.0, 0.0)
        for name, (connections, pause_ms) in LOADS.items():
            plan = LoadPlan(
                connections=connections,
                seconds=arguments.seconds,
                rounds=arguments.rounds,
                pause_ms=pause_ms,
            )
            print(f"\n{name}", flush=True)
            print_table(pair.load(plan))
            now = copies(pair)
            scored, dropped = (b - a for a, b in zip(before, now, strict=True))
            print(f"copies: {scored:,.0f} scored, {dropped:,.0f} dropped, others wait", flush=True)
            before = now
    if not before[0]:
        raise SystemExit("the shadow has scored nothing")


if __name__ == "__main__":
    main()
