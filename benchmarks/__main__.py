"""`make bench`: run the benchmarks of this folder in turn and write docs/benchmarks.md.

    .venv/bin/python -m benchmarks [--quick] [--rounds N] [--seconds N] [--minutes N]
                                   [--only PEER...] [--sections NAME...]
    make bench BENCH="--minutes 20"

The machine should be quiet: the first lines of the page say how busy it was. `--only` chooses among
the contenders of the serving section; sections that are not run keep their last result, which lies
in `.treeline/bench`. `--minutes` bounds the serving section, which begins no round it would not
end in time; the others take about five minutes together.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.serving import measure, report
from benchmarks.serving.wrk import LoadFailed

PAGE: Final = Path("docs/benchmarks.md")
RESULTS: Final = measure.FOLDER / "serving.json"


class Section:
    """A benchmark with its own command line: what it prints is what the page shows."""

    def __init__(self, title: str, module: str, quick: tuple[str, ...], full: tuple[str, ...]):
        self.title = title
        self.module = module
        self._arguments = {True: quick, False: full}

    @property
    def kept(self) -> Path:
        return measure.FOLDER / f"{self.module}.txt"

    def run(self, *, quick: bool) -> None:
        command = [sys.executable, "-m", f"benchmarks.{self.module}", *self._arguments[quick]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode not in (0, 1):  # 1 is a finding, which the page must show
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
        if done.returncode:
            print(f"{self.module} found: {done.stderr.strip() or done.stdout.strip()}", flush=True)
        self.kept.write_text(done.stdout)

    def lines(self) -> list[str]:
        if not self.kept.exists():
            return []
        text = self.kept.read_text().strip()
        body = text.splitlines() if "|---" in text else ["```", *text.splitlines(), "```"]
        return [f"## {self.title}", "", measured(self.kept), "", *body, ""]


SECTIONS: Final = {
    "forest": Section("The compiled forest", "forest", ("--rows", "50000"), ()),
    "capture": Section("Capture in the replica", "capture_cost", ("--rounds", "5"), ()),
    "capture-http": Section(
        "Capture over HTTP, off and on",
        "capture",
        ("--rounds", "2", "--seconds", "2"),
        ("--rounds", "9", "--seconds", "4"),
    ),
    "grpc": Section(
        "gRPC beside HTTP",
        "grpc_ingress",
        ("--rounds", "2", "--seconds", "2"),
        ("--rounds", "7", "--seconds", "3"),
    ),
    "start": Section("A new replica", "replica_start", ("--rounds", "2"), ("--rounds", "7")),
    "agent": Section("The monitoring agent", "agent", ("--rows", "200000"), ()),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measure.add_options(parser)
    names = ("serving", *SECTIONS)
    parser.add_argument("--sections", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    started = time.monotonic()
    measure.FOLDER.mkdir(parents=True, exist_ok=True)
    for name, section in SECTIONS.items():
        if name in options.sections:
            print(f"{name} ...", end=" ", flush=True)
            began = time.monotonic()
            section.run(quick=options.quick)
            print(f"{time.monotonic() - began:.0f} s", flush=True)
    if "serving" in options.sections:
        try:
            measure.write_results(measure.run(measure.plan_of(options)), RESULTS)
        except (LoadFailed, ValueError) as exc:
            print(f"serving: {exc}", file=sys.stderr)
            return 2
    write_page(datetime.now(UTC))
    print(f"all in {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


def write_page(now: datetime) -> None:
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {now:%Y-%m-%d} at {now:%H:%M} UTC: {processor()},",
        f"{os.cpu_count()} cores shared with the load generator, {memory_gb():.0f} GB,",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()};",
        f"load average before the last run's end {os.getloadavg()[1]:.1f}. Figures from another",
        "machine are no comparison; ratios within one run are.",
        "",
    ]
    if RESULTS.exists():
        results = measure.read_results(RESULTS)
        if results.turns:
            report.draw(results, PAGE.parent)
            heading, *rest = report.serving_section(results)
            lines += [heading, "", measured(RESULTS), *rest, ""]
    for section in SECTIONS.values():
        lines += section.lines()
    PAGE.write_text("\n".join(lines).rstrip() + "\n")
    print(f"wrote {PAGE}")


def measured(result: Path) -> str:
    """When a section was run, which need not be now."""
    at = datetime.fromtimestamp(result.stat().st_mtime, UTC)
    return f"Measured on {at:%Y-%m-%d} at {at:%H:%M} UTC."


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


if __name__ == "__main__":
    raise SystemExit(main())
