"""A real S3-protocol server (SeaweedFS), and a proxy in front of it that can fail in many ways.

Signatures stay valid behind the proxy: it passes bytes on, and clients sign the address they dial.
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import s3fs

from tests.e2e.application import free_port

START_TIMEOUT_S = 60.0
DELAY_S = 3.0
ERROR = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>%b</Code><Message>No.</Message></Error>"
)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    key: str = "treeline-test"
    secret: str = "only-for-tests-on-loopback"


class S3Server:
    """`weed mini` on loopback with one bucket, ``log``, and a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.credentials = Credentials()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, wait until requests with the right credentials are answered, make the bucket."""
        self.port = free_port()
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = self._folder / "s3.json"
        config.write_text(json.dumps(identities(self.credentials)))
        ports = {f"{part}.port": free_port() for part in ("master", "volume", "filer", "admin")}
        grpc = {f"{part}.port.grpc": free_port() for part in ("master", "volume", "filer", "s3")}
        flags = {
            "dir": data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "master.heartbeatInterval": "100ms",
            "s3.port": self.port,
            "s3.port.lance": 0,
            "webdav": "false",
            "admin.ui": "false",
            "s3.config": config,
            **ports,
            **grpc,
        }
        command = [str(Path(sys.executable).with_name("weed")), "mini"]
        with (self._folder / "weed.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *(f"-{name}={value}" for name, value in flags.items())],
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        problem: Exception | None = None
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                filesystem = self.filesystem()
                filesystem.mkdir("log")
                filesystem.pipe_file("log/probe", b"1")  # volumes are there, not only the gateway
                filesystem.rm_file("log/probe")
            except OSError as error:
                problem = error
                time.sleep(0.3)
            else:
                return
        log = (self._folder / "weed.log").read_text()[-3_000:]
        raise AssertionError(f"the S3 server does not answer ({problem}):\n{log}")

    def filesystem(self) -> s3fs.S3FileSystem:
        """A fresh client, past the proxy."""
        return s3fs.S3FileSystem(
            key=self.credentials.key,
            secret=self.credentials.secret,
            endpoint_url=self.endpoint,
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={"connect_timeout": 5, "read_timeout": 20},
        )

    def environment(self, *, endpoint: str | None = None) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.credentials.key,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret,
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
        }

    def mirror(self, prefix: str, target: Path) -> None:
        """Copy a sink to a local folder; files of events never change, so each is fetched once."""
        filesystem = self.filesystem()
        for path in filesystem.find(prefix):
            local = target / path.removeprefix(prefix).lstrip("/")
            if local.exists() and local.suffix == ".parquet":
                continue
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(filesystem.cat_file(path))

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def identities(credentials: Credentials) -> dict[str, object]:
    """SeaweedFS's list of who may do what: one administrator, nobody else."""
    access = {"accessKey": credentials.key, "secretKey": credentials.secret}
    actions = ["Admin", "Read", "Write", "List"]
    return {"identities": [{"name": "tests", "credentials": [access], "actions": actions}]}


class Fault(StrEnum):
    """What the proxy does to connections; all but ``PASS`` also cut those that are open."""

    PASS = "pass"
    REFUSE = "refuse"  # nobody listens
    DELAY = "delay"  # every answer comes late
    ERROR = "error"  # 500 to every request
    SLOW_DOWN = "slow_down"  # 503 to every request
    HANG = "hang"  # takes requests and never answers
    RESET_UPLOAD = "reset_upload"  # the body reaches the server in part
    DROP_RESPONSE = "drop_response"  # the object is stored, the client never hears of it


class FaultProxy:
    """A proxy on a thread of its own; its fault is switched while it runs."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self.dropped_responses = 0
        self._target_port = target_port
        self._fault = Fault.PASS
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        self.switch(Fault.PASS)

    def switch(self, fault: Fault) -> None:
        """Cut what is open, and treat every connection from now on like this."""
        asyncio.run_coroutine_threadsafe(self._switch(fault), self._loop).result(10)

    def stop(self) -> None:
        self.switch(Fault.REFUSE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _switch(self, fault: Fault) -> None:
        self._fault = fault
        for writer in list(self._open):
            reset(writer)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        if fault is Fault.REFUSE and self._server is not None:
            self._server.close()
            self._server = None
        elif fault is not Fault.REFUSE and self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            match self._fault:
                case Fault.SLOW_DOWN:
                    await refuse(reader, writer, b"503 Slow Down", b"SlowDown")
                case Fault.ERROR:
                    await refuse(reader, writer, b"500 Internal Server Error", b"InternalError")
                case Fault.HANG:
                    while await reader.read(1 << 16):
                        pass
                case fault:
                    await self._relay(reader, writer, fault)
        except (OSError, asyncio.IncompleteReadError):
            reset(writer)  # one side went away: what the faults are for
        finally:
            self._open.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault
    ) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._open.add(up_writer)
        uploading = asyncio.Event()

        async def up() -> None:
            passed = 0
            while data := await reader.read(1 << 14):
                if data.startswith(b"PUT "):
                    uploading.set()
                passed += len(data)
                if fault is Fault.RESET_UPLOAD and uploading.is_set() and passed > 1_500:
                    up_writer.write(data[: len(data) // 2])
                    await up_writer.drain()
                    raise ConnectionResetError("cut in the middle of an upload")
                up_writer.write(data)
                await up_writer.drain()

        async def down() -> None:
            while data := await up_reader.read(1 << 16):
                interim = data.startswith(b"HTTP/1.1 100")
                if fault is Fault.DROP_RESPONSE and uploading.is_set() and not interim:
                    self.dropped_responses += 1
                    raise ConnectionResetError("the answer is dropped")
                if fault is Fault.DELAY:
                    await asyncio.sleep(DELAY_S)
                writer.write(data)
                await writer.drain()

        relays = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            done, _ = await asyncio.wait(relays, return_when=asyncio.FIRST_COMPLETED)
            for relay in done:
                relay.result()
        finally:
            for relay in relays:
                relay.cancel()
            await asyncio.gather(*relays, return_exceptions=True)
            self._open.discard(up_writer)
            up_writer.close()


async def refuse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: bytes, code: bytes
) -> None:
    """Answer one request with an error and close."""
    await reader.readuntil(b"\r\n\r\n")
    body = ERROR % code
    writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n" % (status, len(body)))
    writer.write(b"Connection: close\r\n\r\n" + body)
    await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Cut a connection with RST, as a dying host does; a plain close would say goodbye."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
