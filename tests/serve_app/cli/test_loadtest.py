"""``treeline loadtest`` against a real server: files, verdict and exit codes."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.sizes.append(len(body["instances"]))
        if len(self.server.sizes) == self.server.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        self._answer(self.server.status, {}, self.headers["X-Request-ID"])

    def do_GET(self):
        decision = {"ts": 1.0, "target": 2, "running": 1, "reason": "forecast"}
        self._answer(200, {"decisions": [decision]}, "")

    def _answer(self, status, body, request_id):
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Request-ID", request_id)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        """Keep the test's output clean."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.status, server.sizes, server.interrupt_at = 200, [], None
        server.url = f"http://127.0.0.1:{server.server_port}/predict"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


SHORT = ("--rate", 40, "--duration", 0.4, "--rows", "1,3,7", "--slo-ms", 9_000)


def test_a_run_is_judged_and_kept(treeline, server, tmp_path):
    out = tmp_path / "run"
    code, printed, err = treeline("loadtest", "--url", server.url, *SHORT, "--out", out)
    assert (code, err) == (0, "")
    assert "the objective held: 100.00% within 9000 ms" in printed
    assert sorted(path.name for path in out.iterdir()) == [
        "report.html",
        "requests.parquet",
        "result.json",
        "seconds.csv",
    ]
    result = json.loads((out / "result.json").read_text())
    assert result["counts"]["planned"] == len(server.sizes)
    assert set(server.sizes) <= {1, 3, 7}
    assert result["scaling"]["decisions"][0]["reason"] == "forecast"


def test_json_alone_on_stdout_and_a_missed_objective_is_a_finding(treeline, server, tmp_path):
    server.status = 503
    code, printed, _ = treeline(
        "loadtest", "--url", server.url, *SHORT, "--out", tmp_path, "--json", "--scaling-url", ""
    )
    result = json.loads(printed)
    assert code == 1
    assert result["verdict"] == {"held": False, "attained": 0.0}
    assert set(result["counts"]["statuses"]) == {"503"}
    assert result["scaling"]["note"] == "not asked for"


def test_a_trace_and_a_body_of_ones_own(treeline, server, tmp_path):
    trace, body = tmp_path / "trace.csv", tmp_path / "body.json"
    trace.write_text("t_s,rps\n0,10\n1,20\n")
    body.write_text('{"instances": [[1, 2]]}')
    code, printed, _ = treeline(
        *("loadtest", "--url", server.url, "--trace", trace, "--speed", 5, "--scale", 4),
        *("--arrivals", "even", "--mix", "1", "--rows", "2", "--body", body, "--slo-ms", 9_000),
        *("--out", tmp_path / "run", "--json"),
    )
    result = json.loads(printed)
    assert code == 0
    assert result["schedule"]["duration_s"] == pytest.approx(0.4)
    assert result["counts"]["planned"] == 24  # 30 requests, 4 times as many in a fifth of the time
    assert set(server.sizes) == {2}


def test_two_runs_are_compared(treeline, server, tmp_path):
    for name in ("before", "after"):
        treeline("loadtest", "--url", server.url, *SHORT, "--out", tmp_path / name)
    pair = (tmp_path / "before", tmp_path / "after")
    code, printed, _ = treeline("loadtest", "--compare", *pair, "--out", tmp_path / "pair")
    assert code == 0
    assert "p99 ms" in printed
    assert (tmp_path / "pair/compare.html").read_text().startswith("<!doctype html>")
    code, printed, _ = treeline(
        "loadtest", "--compare", *pair, "--out", tmp_path / "pair", "--json"
    )
    comparison = json.loads(printed)
    assert (code, comparison["a"], comparison["b"]) == (0, "before", "after")


def test_ctrl_c_stops_the_sending_and_judges_what_was_sent(treeline, server, tmp_path):
    server.interrupt_at = 3
    code, printed, _ = treeline(
        *("loadtest", "--url", server.url, "--rate", 20, "--duration", 3_600, "--rows", "1,2,3"),
        *("--slo-ms", 9_000, "--out", tmp_path, "--json"),
    )
    result = json.loads(printed)
    assert code == 0
    assert 3 <= result["counts"]["planned"] == len(server.sizes) < 100
    assert result["stopped_at_s"] < 60
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--rate", 0), "--rate 0"),
        (("--rate", 5, "--trace", "t.csv"), "not both"),
        (("--trace", "none.csv"), "No such file"),
        (("--url", "localhost"), "--url"),
        (("--mix", "1,2"), "--mix"),
        (("--body", "none.json"), "No such file"),
        (("--slo-ms", -1), "--slo-ms"),
        (("--quantile", 95), "--quantile"),
        (("--warmup", 60), "--warmup"),
        (("--compare", "a", "b"), "No such file"),
        (("--nonsense",), "No such option"),
        (("--url", "http://127.0.0.1:1/predict"), "1/predict: connection refused; is it running?"),
    ],
)
def test_misuse_is_told_and_makes_nothing(treeline, tmp_path, arguments, complaint):
    code, printed, err = treeline("loadtest", *arguments, "--out", tmp_path / "run")
    assert (code, printed) == (2, "")
    assert complaint in err
    assert not (tmp_path / "run").exists()
