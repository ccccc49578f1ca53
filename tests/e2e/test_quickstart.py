"""The main way, end to end: `serve run`, requests, the log, the counters."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.application import REPOSITORY, Application
from tests.e2e.log import count, query, verify, wait_for
from tests.e2e.processes import pids_of
from tests.e2e.traffic import load

pytestmark = pytest.mark.ray

RAY_EXPORTS_S = 12  # a replica's counts are in Ray's metrics after so long at most


def test_the_readmes_commands_do_what_it_says(application: Application, body: bytes) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    _serve, ask, read, prove, _test = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    (application.folder / ".venv").symlink_to(sys.prefix)

    def run(command: str) -> str:
        """Run it in the application's folder, as it stands there but for the port."""
        here = command.replace(":8000/", f":{application.port}/")
        return subprocess.run(
            ["bash", "-ec", here],
            cwd=application.folder,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        ).stdout

    answer = json.loads(run(ask))
    assert answer["request_id"] == "my-first-request"
    prediction = answer["predictions"][0]
    wait_for(lambda: "my-first-request" in run(read), timeout_s=30, what="the request in the log")
    assert run(prove).endswith("ok\n")
    ((version, weight, label, score, probabilities, age, housing, *rest),) = query(
        application.sink,
        "select version, weight, label, score, probabilities, x_age_in_years, x_housing, "
        "feature_set_version, variant, status from {log} where request_id = 'my-first-request'",
    )
    sent = json.loads(body)["instances"][0]
    assert (version, weight) == ("1.0.0", 1.0)
    assert (label, score) == (prediction["label"], prediction["score"])
    assert probabilities == pytest.approx(prediction["probabilities"])
    assert (age, housing) == (sent["age_in_years"], sent["housing"])
    assert rest == ["1", "champion", 200]


def test_a_request_id_is_echoed_once(application: Application, body: bytes) -> None:
    headers = {"X-Request-ID": "echoed", "Content-Type": "application/json"}
    answer = httpx.post(f"{application.url}/predict", content=body, headers=headers)
    assert answer.headers.get_list("x-request-id") == ["echoed"]


def test_ten_thousand_requests_are_logged_exactly_once(
    application: Application, body: bytes
) -> None:
    url = f"{application.url}/predict"
    answers = load(url, body, requests=10_000, concurrency=8, prefix="ten")
    assert answers.statuses == {200: 10_000}
    wait_for(lambda: count(application.sink, "ten") >= 10_000, timeout_s=60, what="10,000 rows")
    rows = query(
        application.sink,
        "select count(*), count(distinct request_id), count(distinct event_id), sum(weight) "
        "from {log} where request_id like 'ten-%'",
    )
    assert rows == [(10_000, 10_000, 10_000, 10_000.0)]
    verdict = verify(str(application.sink))
    assert verdict["ok"], verdict["problems"]


def test_a_handle_call_is_the_same_as_http(application: Application, body: bytes) -> None:
    over_http = httpx.post(f"{application.url}/predict", content=body).json()
    rows = json.loads(body)["instances"]
    printed = application.python(
        "import json, ray\n"
        "from ray import serve\n"
        "ray.init(logging_level='ERROR')\n"
        "handle = serve.get_deployment_handle('ModelServer', 'treeline')\n"
        f"rows = json.loads({json.dumps(rows)!r})\n"
        "context = {'user_id': 'alice', 'tags': {'channel': 'branch'}}\n"
        "print(json.dumps(handle.predict.remote(rows, context=context, request_id='by-handle')"
        ".result()))\n"
        "try:\n"
        "    handle.predict.remote([{'age': 3}]).result()\n"
        "except Exception as error:\n"
        "    print(json.dumps(str(error)))\n"
    )
    answer, complaint = [json.loads(line) for line in printed.splitlines()[-2:]]
    assert answer["predictions"] == over_http["predictions"]
    assert answer["request_id"] == "by-handle"
    assert "RequestInvalidError" in complaint
    wait_for(
        lambda: bool(query(application.sink, "from {log} where request_id = 'by-handle'")),
        timeout_s=30,
        what="the handle call in the log",
    )
    stored = query(
        application.sink, "select user_id, tags from {log} where request_id = 'by-handle'"
    )
    assert stored[0][0] not in (None, "alice")
    assert stored[0][1] in (None, {})


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(max_size=64)
    | st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=6,
    ).map(lambda document: json.dumps({"instances": document}).encode())
)
def test_malformed_bodies_get_problem_json(application: Application, data: bytes) -> None:
    answer = httpx.post(f"{application.url}/predict", content=data)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text


def test_metrics_count_the_whole_application(application: Application) -> None:
    def metrics() -> dict[str, float]:
        text = httpx.get(f"{application.url}/metrics").text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line[:1] != "#"]
        return {name: float(value) for name, value in lines}

    labels = 'code="200",model="credit",variant="champion",version="1.0.0"'
    requests = f"treeline_requests_total{{{labels}}}"
    wait_for(lambda: metrics().get(requests, 0) >= 10_000, timeout_s=10, what="the count")
    captured = 'treeline_capture_events_total{model="credit",variant="champion",version="1.0.0"}'
    assert metrics()[captured] == metrics()[requests]


def test_rays_own_metrics_count_what_takes_the_fast_path(
    application: Application, body: bytes
) -> None:
    sample = 'ray_serve_deployment_request_counter_total{(?=.*deployment="ModelServer")[^}]*} (.*)'

    def counted() -> float:
        found = json.loads(
            (application.ray_folder / "ray/prom_metrics_service_discovery.json").read_text()
        )
        pages = [
            httpx.get(f"http://{address}/metrics").text
            for group in found
            for address in group["targets"]
        ]
        return sum(float(value) for page in pages for value in re.findall(sample, page))

    logs = application.ray_folder.glob("ray/session_latest/logs/serve/replica_*ModelServer*.log")
    assert any("small requests take the fast path" in log.read_text() for log in logs)
    answers = load(f"{application.url}/predict", body, requests=1, concurrency=1, prefix="ray")
    assert answers.statuses == {200: 1}
    wait_for(lambda: counted() > 0, timeout_s=60, what="Ray's counter")
    time.sleep(RAY_EXPORTS_S)
    before = counted()
    answers = load(f"{application.url}/predict", body, requests=500, concurrency=4, prefix="ray")
    assert answers.statuses == {200: 500}
    wait_for(lambda: counted() >= before + 500, timeout_s=60, what="500 more in Ray's counter")
    time.sleep(RAY_EXPORTS_S)
    assert counted() == before + 500


def test_requests_are_answered_while_the_agent_is_dead(
    application: Application, body: bytes
) -> None:
    url = f"{application.url}/predict"
    before = load(url, body, requests=1_500, concurrency=4, prefix="before")
    (agent,) = pids_of(application, "ray::MonitoringAgentActor")
    os.kill(agent, signal.SIGKILL)
    during = load(url, body, requests=1_500, concurrency=4, prefix="during")
    assert before.statuses == during.statuses == {200: 1_500}
    # Same latency, but for the noise of a shared machine and Ray restarting the actor on it.
    assert during.percentile_ms(50) < 3 * before.percentile_ms(50) + 5
    for prefix in ("before", "during"):
        wait_for(
            lambda prefix=prefix: count(application.sink, prefix) >= 1_500,
            timeout_s=90,
            what=f"all of {prefix!r} in the log",
        )
    verdict = verify(str(application.sink))
    assert verdict["ok"], verdict["problems"]
