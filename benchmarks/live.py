"""What counting costs an agent for each row: CPU time beside its spool, and in its own process.

Deliveries of ``--group`` rows with 20 number features come in as they do from replicas; every
``--step`` rows (as many as arrive between two counts) the spool is counted: frames read,
windows of four levels updated and committed. Beside it, in the same run, intake alone. CPU time of
all threads, so that neighbours on the machine matter little. Run as
``OMP_NUM_THREADS=1 python -m benchmarks.live``.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.agent import FEATURES, STREAM, T0_US, delivery
from monitoring.agent.intake import Intake
from monitoring.agent.settings import AgentSettings, InputLimits, SamplingSettings
from monitoring.agent.spool import Spool
from monitoring.analysis.drift.baseline import fit_baseline
from monitoring.live.counting import Counting
from monitoring.live.expectations import Expectation, Expectations
from monitoring.live.store import Store
from monitoring.live.window import key_of

BASELINE_ROWS = 20_000


def expectation() -> Expectation:
    rng = np.random.default_rng(2)
    columns = {f"x_f{i}": rng.normal(size=BASELINE_ROWS) for i in range(FEATURES)}
    limit = InputLimits(min=-4.0, max=4.0)
    return Expectation(
        profile=fit_baseline(pa.table(columns)),
        reason=None,
        limits={f"f{i}": limit for i in range(FEATURES)},
    )


def run(rows: int, group: int, step: int, rate: float) -> dict[str, float]:
    rng = np.random.default_rng(1)
    expected = expectation()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = AgentSettings(policy_ids=("p",), state_dir=str(folder / "state"))
        spool = Spool(folder / "state" / "spool" / "0", "e", settings.spool, T0_US / 1e6)
        intake = Intake(settings, spool, lambda: T0_US / 1e6, keep_aside=True)
        intake.sampling = SamplingSettings(rates={"champion": rate})
        store = Store(folder / "live.sqlite", 3600)
        counting = Counting(
            store, Expectations(lambda *_: expected, time.time), lambda: T0_US / 1e6
        )
        taking_s = counting_s = 0.0
        done = 0
        while done < rows:
            payloads = [delivery(done + 1 + i, group, rng) for i in range(0, step, group)]
            started_s = time.process_time()
            intake.commit(payloads)
            taken_s = time.process_time()
            contents = spool.contents()
            counting.count(list(contents.segments))
            spool.release_aside(contents.aside_mark)
            taking_s += taken_s - started_s
            counting_s += time.process_time() - taken_s
            done += step
        totals = store.totals(key_of(STREAM))
        assert (totals.events, totals.missed_events) == (done, 0)
        store.close()
        spool.close()
    return {
        "group": group,
        "step": step,
        "rate": rate,
        "intake_us_per_row": round(taking_s / done * 1e6, 3),
        "counting_us_per_row": round(counting_s / done * 1e6, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--group", type=int, default=500)
    arguments = parser.parse_args()
    for step in (500, 2_000, 8_000, 20_000):
        for rate in (1.0, 0.1):
            rows = arguments.rows if step > 500 else arguments.rows // 4
            print(json.dumps(run(rows, arguments.group, step, rate)), flush=True)


if __name__ == "__main__":
    main()
