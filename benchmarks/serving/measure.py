"""Run every contender in turn, alone on the machine, round after round.

A round starts a contender, waits for its first answer, warms it, loads it at each number of
connections and stops it. Rounds are interleaved, so what the machine does beside them hurts all
alike; ratios are made within a round, and the median over rounds is what counts.
"""

import argparse
import json
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.contenders import CONTENDERS, SHAPES, Contender
from benchmarks.serving.environments import NotInstallable, python_of, versions
from benchmarks.serving.model import ServedModel, prepare_model
from benchmarks.serving.server import Launch, NotStarted, Server
from benchmarks.serving.wrk import Load, LoadFailed, require_wrk, run_wrk, write_script

FOLDER: Final = Path(".treeline/bench")
CONNECTIONS: Final = (1, 8, 32)
CPU_CONNECTIONS: Final = 8
WARM_S: Final = 10  # what starts beside the server, as the fit of a baseline, must be over
START_TIMEOUT_S: Final = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One contender in one round. ``start_s`` is from the command to the first answer.

    ``cpu_us`` is the processor time of a request at 8 connections, by kind of process.
    """

    contender: str
    round: int
    start_s: float
    memory_mb: float
    cpu_us: dict[str, float]
    loads: tuple[Load, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    rounds: int
    seconds: int
    minutes: float | None
    only: tuple[str, ...]
    uv: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All turns, the versions by contender, and why any other contender is not among them."""

    turns: list[Turn]
    versions: dict[str, str]
    skipped: dict[str, str]


def run(plan: Plan, *, folder: Path = FOLDER) -> Results:
    require_wrk()
    # Leave by way of `Server.stop`, so that nothing is left running.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = folder.absolute()
    model = prepare_model(folder / "model")
    results = Results(turns=[], versions={}, skipped={})
    pythons = {}
    for contender in chosen(plan.only):
        try:
            pythons[contender.name] = python_of(contender, folder, plan.uv)
            results.versions[contender.name] = versions(contender, pythons[contender.name])
        except NotInstallable as exc:
            skip(results, contender, f"cannot be installed here: {exc}")
    began = time.monotonic()
    for number in range(plan.rounds):
        if number and not fits_another(time.monotonic() - began, number, plan.minutes):
            print(f"{number} rounds fit {plan.minutes:g} minutes", flush=True)
            break
        for contender in chosen(plan.only):
            if contender.name in results.skipped:
                continue
            python = pythons[contender.name]
            try:
                turn = take_turn(contender, python, model, folder, plan, number)
            except (NotStarted, LoadFailed) as exc:
                skip(results, contender, str(exc))
                continue
            results.turns.append(turn)
            say(turn)
    return results


def fits_another(spent_s: float, rounds: int, minutes: float | None) -> bool:
    """Whether a round as long as those before ends within the time allowed.

    >>> fits_another(300.0, 1, 10), fits_another(301.0, 1, 10), fits_another(9e9, 1, None)
    (True, False, True)
    """
    return minutes is None or spent_s * (rounds + 1) / rounds <= 60 * minutes


def chosen(only: Sequence[str]) -> list[Contender]:
    """The contenders by name, all without names; ValueError lists the names there are."""
    known = {contender.name: contender for contender in CONTENDERS}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ValueError(f"no contender {', '.join(unknown)}; there is {', '.join(known)}")
    return [known[name] for name in known if not only or name in only]


def take_turn(
    contender: Contender, python: Path, model: ServedModel, folder: Path, plan: Plan, number: int
) -> Turn:
    shape = SHAPES[contender.request]
    script = write_script(folder / f"{contender.request}.lua", map(shape, model.rows))
    launch = Launch(
        python=python,
        command=contender.command,
        serve_config=contender.serve_config,
        variables={
            **contender.variables,
            "BENCH_MODEL": str(model.artifact),
            "BENCH_MODEL_ROOT": str(model.root),
            "BENCH_RESPONSE_BYTES": str(model.response_bytes),
        },
        files=mlserver_files(model) if contender.name == "mlserver" else {},
        probe=json.dumps(shape(model.rows[0])).encode(),
        path=contender.path,
        timeout_s=START_TIMEOUT_S,
    )
    with Server(launch) as server:
        run_wrk(server.url, script, connections=8, seconds=WARM_S)
        loads, memory = [], server.memory_mb()
        cpu_us: dict[str, float] = {}
        for connections in CONNECTIONS:
            before = server.cpu_s()
            load = run_wrk(server.url, script, connections=connections, seconds=plan.seconds)
            if connections == CPU_CONNECTIONS:
                spent = server.cpu_s()
                cpu_us = {
                    kind: (spent[kind] - before[kind]) / load.requests * 1e6 for kind in spent
                }
            loads.append(load)
            memory = max(memory, server.memory_mb())
        return Turn(
            contender=contender.name,
            round=number,
            start_s=server.start_s,
            memory_mb=memory,
            cpu_us=cpu_us,
            loads=tuple(loads),
        )


def mlserver_files(model: ServedModel) -> dict[str, str]:
    """MLServer's two settings files, one worker process, as its documentation shows them."""
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "http_port": "{port}",
        "grpc_port": 0,
        "metrics_port": 0,
        "parallel_workers": 1,
    }
    about = {
        "name": "bench",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(model.artifact)},
    }
    return {
        "settings.json": json.dumps(settings).replace('"{port}"', "{port}"),
        "model-settings.json": json.dumps(about),
    }


def skip(results: Results, contender: Contender, why: str) -> None:
    results.skipped[contender.name] = why.strip().splitlines()[0]
    print(f"skipped {contender.name}: {why}", file=sys.stderr, flush=True)


def say(turn: Turn) -> None:
    loads = "  ".join(
        f"{load.connections}: {load.requests_per_s:,.0f}/s p50 {load.p50_ms:.2f} "
        f"p99 {load.p99_ms:.1f} ms"
        for load in turn.loads
    )
    print(
        f"round {turn.round + 1}  {turn.contender:14} start {turn.start_s:5.1f} s  "
        f"{turn.memory_mb:6.0f} MB  {loads}",
        flush=True,
    )


def median_of(turns: Sequence[Turn], name: str, connections: int, what: str) -> float:
    """Median over rounds of one figure of ``Load``."""
    return statistics.median(
        getattr(load, what)
        for turn in turns
        if turn.contender == name
        for load in turn.loads
        if load.connections == connections
    )


def ratio(turns: Sequence[Turn], name: str, base: str, connections: int, what: str) -> float | None:
    """Median over rounds of a figure beside that of ``base`` in the same round; None without."""
    figures = {
        (turn.contender, turn.round): getattr(load, what)
        for turn in turns
        for load in turn.loads
        if load.connections == connections
    }
    shares = [
        figure / figures[base, number]
        for (contender, number), figure in figures.items()
        if contender == name and (base, number) in figures
    ]
    return statistics.median(shares) if shares else None


def read_results(path: Path) -> Results:
    """Read what ``write_results`` left."""
    stored = json.loads(path.read_text())
    turns = [
        Turn(**{**turn, "loads": tuple(Load(**load) for load in turn["loads"])})
        for turn in stored["turns"]
    ]
    return Results(turns=turns, versions=stored["versions"], skipped=stored["skipped"])


def write_results(results: Results, path: Path) -> None:
    path.write_text(json.dumps(asdict(results), indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    options = parser.parse_args()
    try:
        results = run(plan_of(options))
    except LoadFailed as exc:
        print(exc, file=sys.stderr)
        return 2
    write_results(results, FOLDER / "serving.json")
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(contender.name for contender in CONTENDERS)
    parser.add_argument("--quick", action="store_true", help="one round of 3 s")
    parser.add_argument("--rounds", type=int, help="rounds (5, quick: 1)")
    parser.add_argument("--seconds", type=int, help="per number of connections (8, quick: 3)")
    parser.add_argument("--minutes", type=float, help="begin no round that would end later")
    parser.add_argument("--only", nargs="+", default=[], metavar="PEER", help=f"of {names}")
    parser.add_argument("--uv", default=".uv/bin/uv", help="uv, for the peers' environments")


def plan_of(options: argparse.Namespace) -> Plan:
    return Plan(
        rounds=options.rounds or (1 if options.quick else 5),
        seconds=options.seconds or (3 if options.quick else 8),
        minutes=options.minutes,
        only=tuple(options.only),
        uv=options.uv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
