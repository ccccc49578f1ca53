"""One row over gRPC beside HTTP: rate, latency, and processor time in replica and proxy.

    .venv/bin/python -m benchmarks.grpc_ingress [--rounds 5] [--seconds 4] [--connections 8]

One application with `configs/grpc.yaml`'s ingress, every prediction captured; the same rows as
`/predict`, as the protocol's REST form, as gRPC with typed contents and as gRPC with raw bytes, in
turn within each round. The clients are Python's (aiohttp, grpc.aio), in this process and closed
loops: the rate is theirs, so compare the microseconds of replica and proxy.
"""

import argparse
import asyncio
import itertools
import statistics
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import grpc
import msgspec

from benchmarks.serving.contenders import treeline
from benchmarks.serving.measure import FOLDER, START_TIMEOUT_S
from benchmarks.serving.model import FEATURES, NAME, ServedModel, prepare_model
from benchmarks.serving.server import REPOSITORY, Launch, Server
from serve_app.grpc.open_inference_pb2 import ModelInferRequest, ModelInferResponse

INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
Ask = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One closed loop: requests per second, milliseconds, microseconds of a request by process."""

    rate: float
    p50_ms: float
    p99_ms: float
    replica_us: float
    proxy_us: float


def launch(model: ServedModel) -> Launch:
    row = dict(zip(FEATURES, model.rows[0].values(), strict=True))
    return Launch(
        python=Path(sys.executable),
        command=(),
        serve_config=treeline("treeline", "", capture=True).serve_config,
        variables={"BENCH_MODEL_ROOT": str(model.root)},
        files={},
        probe=msgspec.json.encode({"instances": [row]}),
        path="/predict",
        timeout_s=START_TIMEOUT_S,
        ingress=REPOSITORY / "configs/grpc.yaml",
    )


def over_http(http: aiohttp.ClientSession, url: str, documents: list[object]) -> Ask:
    bodies = itertools.cycle([msgspec.json.encode(document) for document in documents])
    headers = {"Content-Type": "application/json"}

    async def ask() -> None:
        async with http.post(url, data=next(bodies), headers=headers) as answer:
            answer.raise_for_status()
            msgspec.json.decode(await answer.read())

    return ask


def over_grpc(channels: list[grpc.aio.Channel], requests: list[ModelInferRequest]) -> Ask:
    """Calls go to the channels in turn: one HTTP/2 connection each."""
    stubs = itertools.cycle(
        channel.unary_unary(
            INFER,
            request_serializer=ModelInferRequest.SerializeToString,
            response_deserializer=ModelInferResponse.FromString,
        )
        for channel in channels
    )
    turn = itertools.cycle(requests)

    async def ask() -> None:
        await next(stubs)(next(turn), timeout=10)

    return ask


def protobuf_requests(model: ServedModel, *, raw: bool) -> Iterator[ModelInferRequest]:
    for row in model.rows:
        values = list(row.values())
        request = ModelInferRequest(model_name=NAME)
        tensor = request.inputs.add(name="x", datatype="FP64", shape=[1, len(values)])
        if raw:
            request.raw_input_contents.append(struct.pack(f"<{len(values)}d", *values))
        else:
            tensor.contents.fp64_contents.extend(values)
        yield request


def tensor_document(row: dict[str, float]) -> object:
    values = list(row.values())
    return {"inputs": [{"name": "x", "shape": [1, 20], "datatype": "FP64", "data": values}]}


async def load(server: Server, ask: Ask, *, seconds: float, connections: int) -> Run:
    times: list[float] = []
    before, began = server.cpu_s(), time.perf_counter()

    async def worker() -> None:
        while (start := time.perf_counter()) < began + seconds:
            await ask()
            times.append(time.perf_counter() - start)

    await asyncio.gather(*(worker() for _ in range(connections)))
    spent_s, after = time.perf_counter() - began, server.cpu_s()
    cuts = statistics.quantiles(times, n=100)

    def us(kind: str) -> float:
        return (after[kind] - before[kind]) / len(times) * 1e6

    return Run(
        rate=len(times) / spent_s,
        p50_ms=1e3 * cuts[49],
        p99_ms=1e3 * cuts[98],
        replica_us=us("replica"),
        proxy_us=us("proxy"),
    )


async def measure(server: Server, model: ServedModel, options: argparse.Namespace) -> None:
    base = f"http://127.0.0.1:{server.port}"
    channels = [
        grpc.aio.insecure_channel(
            f"127.0.0.1:{server.grpc_port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        for _ in range(options.connections)
    ]
    connector = aiohttp.TCPConnector(limit=options.connections)
    async with aiohttp.ClientSession(connector=connector) as http:
        rows = model.rows
        infer = f"{base}/v2/models/{NAME}/infer"
        asks = {
            "POST /predict": over_http(
                http, f"{base}/predict", [{"instances": [row]} for row in rows]
            ),
            "POST …/infer": over_http(http, infer, list(map(tensor_document, rows))),
            "gRPC, contents": over_grpc(channels, list(protobuf_requests(model, raw=False))),
            "gRPC, raw bytes": over_grpc(channels, list(protobuf_requests(model, raw=True))),
        }
        size = {"seconds": options.seconds, "connections": options.connections}
        runs: dict[str, list[Run]] = {name: [] for name in asks}
        for number in range(options.rounds + 1):  # the first warms
            for name, ask in asks.items():
                run = await load(server, ask, **size)
                if number:
                    runs[name].append(run)
    for channel in channels:
        await channel.close()
    print_table(runs, options.connections)


def print_table(runs: dict[str, list[Run]], connections: int) -> None:
    print(f"{connections} connections, medians of {len(next(iter(runs.values())))} rounds\n")
    print("| | /s (client-bound) | p50, ms | p99, ms | replica, µs | proxy, µs |")
    print("|---|---|---|---|---|---|")
    for name, each in runs.items():
        figures = {
            field: statistics.median(getattr(run, field) for run in each)
            for field in Run.__dataclass_fields__
        }
        print(
            f"| {name} | {figures['rate']:,.0f} | {figures['p50_ms']:.2f} | "
            f"{figures['p99_ms']:.2f} | {figures['replica_us']:.0f} | {figures['proxy_us']:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    model = prepare_model(FOLDER.absolute() / "model")
    with Server(launch(model)) as server:
        asyncio.run(measure(server, model, options))


if __name__ == "__main__":
    main()
