"""What capture costs a caller: the same model with capture off and on at 100%, over HTTP.

``side_by_side`` says how the two are measured. The CPU per event in the replica is measured by
``benchmarks.capture_cost``, the agent's rate by ``benchmarks.agent``.

    python -m benchmarks.capture [--rounds 9] [--seconds 4] [--connections 8]

Needs ``wrk`` (Debian package) and the demo bundle (``treeline demo``).
"""

import argparse
from pathlib import Path

from benchmarks.side_by_side import LoadPlan, Pair, Round, Side, print_table, running, total
from tests.e2e.application import REPOSITORY


def check_capture(pair: Pair, rounds: list[Round], seconds: int) -> None:
    """A capture that does nothing would be quick: it must have counted the requests."""
    captured = total(pair.metrics("on"), "treeline_capture_events_total")
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
    plan = LoadPlan(
        connections=arguments.connections, seconds=arguments.seconds, rounds=arguments.rounds
    )
    off, on = (Side(args={"capture": {"enabled": enabled}}) for enabled in (False, True))
    with running(arguments.models, off, on) as pair:
        rounds = pair.load(plan)
        print_table(rounds)
        check_capture(pair, rounds, plan.seconds)


if __name__ == "__main__":
    main()
