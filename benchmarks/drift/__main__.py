"""False alarms, power, real data, cost, and the same windows given to what others use.

    python -m benchmarks.drift [--quick] [--only PART,PART] [--runs N] [--seed N] [--baseline ROWS]

Parts: false-alarms, autocorrelated, power, weather, cost, rivals. Times are CPU times of one core;
every share is of reports in which anything is raised, at a stated 1%.
"""

import argparse
from pathlib import Path

from benchmarks.drift import cost, reports, rivals, weather

PARTS = ("false-alarms", "autocorrelated", "power", "weather", "cost", "rivals")
WEATHER = Path(__file__).resolve().parents[3] / "shared/data/weather.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, help="reports without drift; a tenth for each change")
    parser.add_argument("--baseline", type=int, default=50_000, help="its rows, for power")
    parser.add_argument("--match", default="", help="only what has this in its name")
    parser.add_argument("--weather", type=Path, default=WEATHER)
    parser.add_argument("--picture", type=Path, help="where to plot the weather's alarms")
    options = parser.parse_args()
    chosen = options.only.split(",")
    runs = options.runs or (200 if options.quick else 2_000)
    for part, cases in (
        ("false-alarms", reports.INDEPENDENT),
        ("autocorrelated", reports.DEPENDENT),
    ):
        for case in cases if part in chosen else ():
            if options.match not in case.name:
                continue
            print(*reports.false_alarms(case, runs, options.seed), sep="\n", flush=True)
    if "power" in chosen:
        lines = reports.power(runs // 10, options.baseline, options.seed, options.match)
        print(*lines, sep="\n", flush=True)
    if "weather" in chosen and options.weather.exists():
        weather.weather(options.weather, options.picture)
    if "cost" in chosen:
        cost.cost(1_000_000, options.seed)
    if "rivals" in chosen:
        for line in rivals.compare(runs // 20, options.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
