"""Versions beside each other, end to end: split, shadow, labels, comparison, and a live change.

`configs/canary.yaml` as it is shipped: 1.0.0 is the champion, 1.1.0 gets a fifth of the sessions,
1.2.0, which uses fewer features, shadows everything. It answers gRPC as `configs/grpc.yaml` does.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import httpx
import pytest
import yaml
from scipy.stats import binomtest

from serve_app.grpc.open_inference_pb2 import ModelInferRequest, ModelMetadataRequest
from tests.e2e.application import REPOSITORY, Application, merge
from tests.e2e.blows import Target
from tests.e2e.chaos import Cluster, Traffic
from tests.e2e.inference import Stub
from tests.e2e.log import query, verify, wait_for
from tests.e2e.processes import listening
from tests.e2e.started import started

pytestmark = pytest.mark.ray

SESSIONS = 1_000
REQUESTS = 2 * SESSIONS


@pytest.fixture(scope="module")
def application(
    tmp_path_factory: pytest.TempPathFactory, versions_root: Path
) -> Iterator[Application]:
    document = yaml.safe_load((REPOSITORY / "configs/canary.yaml").read_text())
    over_grpc = yaml.safe_load((REPOSITORY / "configs/grpc.yaml").read_text())
    document |= {key: over_grpc[key] for key in ("grpc_options", "controller_options")}
    shipped = document["applications"][0]
    shipped["args"] = merge(shipped["args"], {"model_root": str(versions_root)})
    with started(Application(tmp_path_factory.mktemp("versions"), document)) as running:
        yield running


async def ask(url: str, body: bytes, prefix: str) -> dict[str, list[str]]:
    """Ask twice in each session; return the versions that answered, by session."""
    answered: dict[str, list[str]] = {f"s-{n}": [] for n in range(SESSIONS)}
    numbers = iter(range(REQUESTS))
    instances = json.loads(body)["instances"]

    async def worker(http: aiohttp.ClientSession) -> None:
        for number in numbers:
            session = f"s-{number % SESSIONS}"
            document = {"instances": instances, "context": {"session_id": session}}
            headers = {"X-Request-ID": f"{prefix}-{number}"}
            async with http.post(url, json=document, headers=headers) as answer:
                assert answer.status == 200
                answered[session].append((await answer.json())["version"])

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(worker(http) for _ in range(4)))
    return answered


@pytest.fixture(scope="module")
def answered(application: Application, body: bytes) -> dict[str, list[str]]:
    found = asyncio.run(ask(f"{application.url}/predict", body, "split"))

    def stored() -> bool:
        return len(logged(application.sink)) == 2 * REQUESTS

    wait_for(stored, timeout_s=90, what=f"{REQUESTS} answers and their shadows in the log")
    return found


def logged(sink: Path) -> list[tuple[Any, ...]]:
    return query(
        sink,
        "select request_id, version, variant, session_id from {log} "
        "where request_id like 'split-%'",
    )


def test_sessions_are_split_as_asked_and_stay(
    application: Application, answered: dict[str, list[str]]
) -> None:
    assert all(len(set(versions)) == 1 for versions in answered.values())
    challenged = sum(versions[0] == "1.1.0" for versions in answered.values())
    assert binomtest(challenged, SESSIONS, 0.2).pvalue > 0.01
    print(f"{challenged} of {SESSIONS} sessions went to 1.1.0")
    variants = {(row[1], row[2]) for row in logged(application.sink)}
    assert variants == {("1.0.0", "champion"), ("1.1.0", "challenger"), ("1.2.0", "shadow")}


def test_shadows_pair_with_the_answers(
    application: Application, answered: dict[str, list[str]]
) -> None:
    shadowed = {row[0] for row in logged(application.sink) if row[2] == "shadow"}
    assert shadowed == {f"split-{n}" for n in range(REQUESTS)}
    columns = query(
        application.sink, "select count(x_foreign_worker) from {log} where version='1.2.0'"
    )
    assert columns == [(0,)]  # 1.2.0 does not look at it, so it is not in its log


def test_the_log_is_compared_and_its_split_checked(
    application: Application, answered: dict[str, list[str]]
) -> None:
    options = ["--split", "1.0.0=0.8,1.1.0=0.2", "--metric", "error_rate", "--metric", "score"]
    found = treeline("compare", "--sink", str(application.sink), *options)
    assert found["control"] == "1.0.0"
    assert found["split"]["ok"], found["split"]
    assert sum(found["split"]["counts"].values()) >= SESSIONS
    paired = {
        (c["comparison"]["treatment"], c["comparison"]["metric"]): c["comparison"]["paired"]
        for c in found["comparisons"]
    }
    assert paired == {
        ("1.1.0", "error_rate"): False,
        ("1.1.0", "score"): False,
        ("1.2.0", "error_rate"): True,
        ("1.2.0", "score"): True,
    }


def treeline(*arguments: str, cwd: Path | None = None) -> dict[str, Any]:
    command = [str(Path(sys.executable).with_name("treeline")), *arguments, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_AUTH_MODE": "token"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=cwd, timeout=200
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_metrics_count_each_version_in_its_role(
    application: Application, answered: dict[str, list[str]]
) -> None:
    challenged = sum(versions.count("1.1.0") for versions in answered.values())

    def counted() -> bool:
        text = httpx.get(f"{application.url}/metrics").text
        return all(
            f'treeline_requests_total{{code="200",model="credit",variant="{variant}",'
            f'version="{version}"}} {count}.0' in text
            for version, variant, count in (
                ("1.0.0", "champion", REQUESTS - challenged),
                ("1.1.0", "challenger", challenged),
                ("1.2.0", "shadow", REQUESTS),
            )
        )

    wait_for(counted, timeout_s=20, what="the counts of all three versions")


def test_a_version_can_be_asked_by_name(application: Application, body: bytes) -> None:
    row = json.loads(body)["instances"][0]
    del row["personal_status_and_sex"], row["foreign_worker"]  # 1.2.0 has no such features
    inputs = [
        {
            "name": name,
            "shape": [1],
            "datatype": "BYTES" if isinstance(value, str) else "INT64",
            "data": [value],
        }
        for name, value in row.items()
    ]
    models = f"{application.url}/v2/models/credit"
    answer = httpx.post(f"{models}/versions/1.2.0/infer", json={"id": "named-1", "inputs": inputs})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_version"] == "1.2.0"
    refused = httpx.post(f"{models}/versions/2.0.0/infer", json={"inputs": inputs})
    assert refused.status_code == 404
    assert "'1.0.0', '1.1.0', '1.2.0'" in refused.json()["detail"]


@pytest.fixture
def stub(application: Application) -> Iterator[Stub]:
    with grpc.insecure_channel(f"127.0.0.1:{application.grpc_port}") as channel:
        yield Stub(channel)


def tensors_of(row: dict[str, Any]) -> ModelInferRequest:
    request = ModelInferRequest(model_name="credit")
    for name, value in row.items():
        tensor = request.inputs.add(name=name, shape=[1])
        if isinstance(value, str):
            tensor.datatype = "BYTES"
            tensor.contents.bytes_contents.append(value.encode())
        else:
            tensor.datatype = "INT64"
            tensor.contents.int64_contents.append(value)
    return request


def test_grpc_answers_and_is_logged_as_http(
    application: Application, body: bytes, stub: Stub
) -> None:
    request = tensors_of(json.loads(body)["instances"][0])
    request.id = "grpc-1"
    request.parameters["context"].string_param = '{"session_id": "over-grpc"}'
    response = stub.infer(request, timeout=10)
    context = {"session_id": "over-grpc"}
    document = {**json.loads(body), "context": context}
    answer = httpx.post(f"{application.url}/predict", json=document).json()
    assert (response.model_version, response.id) == (answer["version"], "grpc-1")
    label, score, probabilities = response.outputs
    (predicted,) = answer["predictions"]
    assert list(label.contents.bytes_contents) == [predicted["label"].encode()]
    assert list(score.contents.fp64_contents) == [predicted["score"]]
    assert list(probabilities.contents.fp64_contents) == predicted["probabilities"]

    def stored() -> list[tuple[Any, ...]]:
        return query(
            application.sink,
            "select version, label, score, status from {log} where request_id = 'grpc-1' "
            "and variant <> 'shadow'",
        )

    wait_for(lambda: bool(stored()), timeout_s=60, what="the call in the log")
    assert stored() == [(answer["version"], predicted["label"], predicted["score"], 200)]


def test_grpc_names_versions_and_what_is_wrong(stub: Stub, body: bytes) -> None:
    described = stub.describe(ModelMetadataRequest(name="credit", version="1.2.0"), timeout=10)
    assert list(described.versions) == ["1.0.0", "1.1.0", "1.2.0"]
    assert "foreign_worker" not in {tensor.name for tensor in described.inputs}
    request = tensors_of(json.loads(body)["instances"][0])
    request.model_version = "2.0.0"
    with pytest.raises(grpc.RpcError) as refused:
        stub.infer(request, timeout=10)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    request.model_version = ""
    del request.inputs[0]
    with pytest.raises(grpc.RpcError) as refused:
        stub.infer(request, timeout=10)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "missing tensor" in refused.value.details()


def test_grpc_listens_on_loopback(application: Application) -> None:
    hosts: dict[str, set[str]] = {}
    for host, port in listening():
        kind = application.grpc_ports.get(port)
        if kind is not None:
            hosts.setdefault(kind, set()).add(host)
    loopback = {"127.0.0.1"}
    assert hosts == {"haproxy": loopback, "fallback proxy": loopback, "replica": loopback}


def labels(sink: Path) -> list[tuple[Any, ...]]:
    if not any(sink.glob("feedback/**/*.parquet")):
        return []
    files = f"read_parquet('{sink}/feedback/**/*.parquet', hive_partitioning=false)"
    return query(
        sink,
        "select f.request_id, f.value, f.number, e.label, e.version "
        f"from {files} f join {{log}} e using (request_id, row) where request_id like 'said-%'",
    )


def test_a_label_is_stored_once_and_joins_every_version_that_answered(
    application: Application, body: bytes
) -> None:
    headers = {"X-Request-ID": "said-1"}
    answer = httpx.post(f"{application.url}/predict", content=body, headers=headers).json()
    label = answer["predictions"][0]["label"]
    said = {"request_id": "said-1", "kind": "label", "value": label, "row": 0}
    assert httpx.post(f"{application.url}/feedback", json=said).status_code == 202
    refused = httpx.post(f"{application.url}/feedback", json={**said, "kind": "no kind"})
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    wait_for(lambda: len(labels(application.sink)) == 2, timeout_s=60, what="the feedback")
    found = {version: rest for *rest, version in labels(application.sink)}
    assert found.keys() == {answer["version"], "1.2.0"}
    assert found[answer["version"]] == ["said-1", label, None, label]


def with_traffic(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    shipped = document["applications"][0]
    (deployment,) = shipped["deployments"]
    config = deployment["user_config"]
    changed = {**deployment, "user_config": {**config, "traffic": {**config["traffic"], **changes}}}
    return {**document, "applications": [{**shipped, "deployments": [changed]}]}


def state(application: Application) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{application.url}/monitor/api/traffic").json()
    return found


def test_the_split_changes_under_load_and_a_rule_promotes_and_nothing_restarts(
    application: Application, body: bytes, answered: dict[str, list[str]]
) -> None:
    cluster = Cluster(application.ray_folder)
    replicas = cluster.pids(Target.REPLICA)
    url = f"{application.url}/predict"
    assert state(application)["shares"] == pytest.approx({"1.0.0": 0.8, "1.1.0": 0.2})
    with Traffic(url, body, prefix="live") as load:
        load.wait_for_answers(100)
        application.deploy(with_traffic(application.document, shares={"1.1.0": 0.5}))
        wait_for(lambda: state(application)["shares"]["1.1.0"] == 0.5, timeout_s=30, what="a half")
        load.wait_for_answers(300)
    assert not load.failed, load.outcomes

    rule = {
        "version": "1.1.0",
        "since": datetime.now(UTC).isoformat(),
        "margins": {"error_rate": 0.02},
        "min_units": 300,
    }
    grown = asyncio.run(ask(url, body, "after"))
    before = {session for session, versions in answered.items() if versions[0] == "1.1.0"}
    after = {session for session, versions in grown.items() if set(versions) == {"1.1.0"}}
    assert before < after
    assert binomtest(len(after), SESSIONS, 0.5).pvalue > 0.01

    config = application.folder / "canary.yaml"
    document = with_traffic(application.document, shares={"1.1.0": 0.5}, rule=rule)
    config.write_text(yaml.safe_dump(document))
    options = ["--write", str(config), "--apply", "--address", application.dashboard]
    found = treeline("promote", str(config), *options, "--every", "2", cwd=application.folder)
    assert (found["action"], found["applied"]) == ("promote", True), found["reason"]
    assert found["report"]["split"]["ok"]
    wait_for(lambda: state(application)["shares"]["1.1.0"] == 1.0, timeout_s=30, what="all of it")
    last = state(application)["changes"][-1]
    assert last["reason"].startswith("promote 1.1.0: no worse than allowed: error_rate")
    assert httpx.post(url, content=body).json()["version"] == "1.1.0"
    assert cluster.pids(Target.REPLICA) == replicas


def test_a_wrong_split_is_refused_and_the_one_before_stays(
    application: Application, body: bytes
) -> None:
    cluster = Cluster(application.ray_folder)
    replicas, before = cluster.pids(Target.REPLICA), state(application)["shares"]
    wrong = with_traffic(application.document, shares={"1.3.0": 0.5})
    with Traffic(f"{application.url}/predict", body, prefix="refused") as load:
        load.wait_for_answers(50)
        application.deploy(wrong)  # by `serve deploy`; `treeline deploy` would refuse the file

        def warned() -> bool:
            health = httpx.get(f"{application.url}/monitor/api/health").json()
            return "traffic names version '1.3.0'" in str(health)

        wait_for(warned, timeout_s=30, what="a warning")
        load.wait_for_answers(50)
    assert not load.failed, load.outcomes
    assert state(application)["shares"] == before
    assert cluster.pids(Target.REPLICA) == replicas
    application.deploy(with_traffic(application.document, shares={"1.1.0": 1.0}))
    wait_for(lambda: not warned(), timeout_s=30, what="the warning's end")


def test_the_ledger_closes_for_every_stream(application: Application) -> None:
    def settled() -> bool:
        return bool(verify(str(application.sink))["ok"])

    wait_for(settled, timeout_s=60, what="a ledger without gaps")
    ((producers,),) = query(
        application.sink, "select count(distinct producer) from {log} where variant is not null"
    )
    assert producers == 4  # the champion's, two challengers' and one shadow's
