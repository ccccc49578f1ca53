import logging
import socket

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from monitoring.agent.settings import SinkSettings
from monitoring.agent.sink import FsspecSink, explain, s3_options
from monitoring.errors import SinkUnavailable
from tests.monitoring.agent.conftest import Agent, delivery


class ScriptedFilesystem(MemoryFileSystem):
    """Memory that refuses as often as it is told to."""

    cachable = False

    def __init__(self, refusals):
        super().__init__()
        self.store = {}
        self.pseudo_dirs = [""]
        self.refusals = list(refusals)

    def pipe_file(self, path, value, **kwargs):
        if self.refusals:
            raise self.refusals.pop(0)
        super().pipe_file(path, value, **kwargs)


SETTINGS = SinkSettings(
    url="memory://bucket/log", endpoint_url="http://127.0.0.1:9", key="AKIA", secret="hush"
)


def test_local_files_appear_whole(tmp_path):
    sink = FsspecSink(SinkSettings(url=f"file://{tmp_path}/sink"))
    for content in (b"one", b"two"):
        sink.put("events/a/b.parquet", memoryview(content))
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert path.read_bytes() == b"two"


def test_a_sink_tells_whether_it_holds_a_file(tmp_path):
    local = FsspecSink(SinkSettings(url=str(tmp_path / "sink")))
    remote = FsspecSink(SETTINGS, lambda: ScriptedFilesystem([]))
    for sink in (local, remote):
        assert not sink.holds("events/a/b.parquet")
        sink.put("events/a/b.parquet", memoryview(b"x"))
        assert sink.holds("events/a/b.parquet")


class Unreadable(ScriptedFilesystem):
    """Memory that answers every look with an error."""

    def __init__(self, error):
        super().__init__([])
        self.error = error

    def info(self, path, **kwargs):
        raise self.error


def test_who_may_not_look_is_told_no_and_who_gets_no_answer_is_told_so():
    forbidden, silent = Unreadable(PermissionError("403")), Unreadable(OSError("hush"))
    assert not FsspecSink(SETTINGS, lambda: forbidden).holds("k")
    with pytest.raises(SinkUnavailable, match=r"cannot look into memory://bucket/log: OSError"):
        FsspecSink(SETTINGS, lambda: silent).holds("k")


def test_any_error_of_any_client_is_translated_once(tmp_path):
    filesystem = ScriptedFilesystem([PermissionError("InvalidAccessKeyId AKIA hush")])
    sink = FsspecSink(SETTINGS, lambda: filesystem)
    with pytest.raises(SinkUnavailable) as caught:
        sink.put("k", memoryview(b"x"))
    assert "cannot write to memory://bucket/log: PermissionError" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "AKIA" not in str(caught.value)
    sink.put("k", memoryview(b"x"))
    assert filesystem.cat_file("/bucket/log/k") == b"x"


def test_wrong_credentials_give_one_error_and_lose_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="monitoring")
    filesystem = ScriptedFilesystem([PermissionError("Access Denied")] * 5)
    agent = Agent(tmp_path, sink=FsspecSink(SETTINGS, lambda: filesystem))
    agent.take(delivery(1, 5))
    waits = []
    for _ in range(5):
        with pytest.raises(SinkUnavailable):
            agent.drain()
        waits.append(agent.uploader.wait_s())
    agent.drain()
    agent.die()
    assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]
    assert "Access Denied" in caplog.text
    assert agent.uploader.counts.failures == 5
    assert agent.uploader.counts.rows == 5
    assert max(waits) <= agent.settings.retry.first_s * 2**5


def test_an_error_names_endpoint_and_bucket():
    settings = SinkSettings(url="s3://bucket/log", endpoint_url="http://127.0.0.1:9", secret="hush")
    text = explain(settings, OSError("hush!"))
    assert text == "cannot write to s3://bucket/log at http://127.0.0.1:9: OSError: ***!"


def test_a_server_that_falls_silent_is_given_up():
    """No read is under way while the client waits for `100 Continue`: its time-outs don't act."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = SinkSettings(
            url="s3://bucket/log",
            endpoint_url=endpoint,
            key="some-key",
            secret="some-secret",
            region="us-east-1",
            read_timeout_s=0.1,
            upload_timeout_s=0.1,
        )
        with pytest.raises(SinkUnavailable, match="upload not answered within 0 s"):
            FsspecSink(settings).put("k", memoryview(b"x"))


def test_other_servers_than_aws_get_no_extra_checksums(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    assert "request_checksum_calculation" not in s3_options(SinkSettings())["config_kwargs"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    options = s3_options(SinkSettings(region="eu-central-1", key="k"))
    assert options["config_kwargs"]["request_checksum_calculation"] == "when_required"
    assert options["endpoint_url"] == "http://127.0.0.1:9"
    assert options["client_kwargs"] == {"region_name": "eu-central-1"}
    assert options["key"] == "k"
    assert "secret" not in options
