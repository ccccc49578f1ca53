"""Storage: one object written whole or not at all, under a key that says what it holds."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

import fsspec
from fsspec.exceptions import FSTimeoutError

from monitoring.agent.durable import replace_file
from monitoring.agent.settings import SinkSettings
from monitoring.agent.spool_frames import OpenHead
from monitoring.errors import SinkUnavailable

EVENTS: Final = "events"
FEEDBACK: Final = "feedback"
LEDGER: Final = "ledger"
SLOWEST_BYTES_PER_S: Final = 100_000.0


class Sink(Protocol):
    """Where files go. ``put`` is idempotent and atomic; it raises ``SinkUnavailable``."""

    def put(self, key: str, data: memoryview) -> None: ...


def event_key(opening: OpenHead) -> str:
    """Key of a segment's file, relative to the sink; names are quoted, so none can leave it."""
    if opening.stream.kind == "feedback":
        return f"{FEEDBACK}/date={opening.date}/{opening.shard}-{opening.segment}.parquet"
    model, version = quote(opening.stream.model, safe=""), quote(opening.stream.version, safe="")
    return (
        f"{EVENTS}/model={model}/version={version}/date={opening.date}/hour={opening.hour:02d}/"
        f"{opening.shard}-{opening.segment}.parquet"
    )


def head_key(shard: str, epoch: str, part: int) -> str:
    """Key of one part of an epoch's ledger, relative to the sink."""
    return f"{LEDGER}/{shard}-{epoch}-{part:04d}.json"


class FsspecSink:
    """A sink on any fsspec filesystem, made on first use, in the process that uses it.

    Local files are written under a temporary name, forced to disk and renamed. Object stores take
    an object whole in one request. A failed first connection is tried afresh by the next ``put``.
    """

    def __init__(self, settings: SinkSettings, connect: Callable[[], Any] | None = None) -> None:
        self._settings = settings
        self._connect = connect or partial(open_filesystem, settings)
        self._filesystem: Any = None
        self._root = root_path(settings.url)

    def put(self, key: str, data: memoryview) -> None:
        path = f"{self._root}/{key}"
        try:
            if is_local(self._settings.url):
                target = Path(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                replace_file(target, data)
            else:
                self._upload(path, bytes(data))
        except Exception as error:  # each storage's client has its own tree of errors
            raise SinkUnavailable(explain(self._settings, error)) from error

    def holds(self, key: str) -> bool:
        """Whether a file is there. Raises ``SinkUnavailable`` while storage does not answer.

        Who may write and not read cannot ask, today or ever: for them no file is there.
        """
        path = f"{self._root}/{key}"
        try:
            if is_local(self._settings.url):
                return Path(path).is_file()
            self._connected().info(path)
        except (FileNotFoundError, PermissionError):
            return False
        except Exception as error:  # as above
            raise SinkUnavailable(explain(self._settings, error, "look into")) from error
        return True

    def _upload(self, path: str, data: bytes) -> None:
        """Put an object; a server that falls silent is given up.

        The client's own read time-out does not cover this: while it waits for ``100 Continue`` no
        read is under way, and one silent connection would stop the uploads for good.
        """
        filesystem = self._connected()
        if not filesystem.async_impl:  # others know no time-outs
            filesystem.pipe_file(path, data)
            return
        timeout_s = self._settings.upload_timeout_s + len(data) / SLOWEST_BYTES_PER_S
        try:
            filesystem.pipe_file(path, data, timeout=timeout_s)
        except FSTimeoutError as error:
            raise TimeoutError(f"upload not answered within {timeout_s:.0f} s") from error

    def _connected(self) -> Any:
        if self._filesystem is None:
            self._filesystem = self._connect()
        return self._filesystem


def is_local(url: str) -> bool:
    return urlsplit(url).scheme in ("", "file")


def root_path(url: str) -> str:
    """Return a sink's path as its filesystem spells it, without a slash at the end."""
    parts = urlsplit(url)
    if is_local(url):
        return str(Path(parts.path or url).absolute())
    return f"{parts.netloc}{parts.path}".rstrip("/")


def open_filesystem(settings: SinkSettings) -> Any:
    """Make a fresh fsspec filesystem: no cached listings, no instance shared with others."""
    scheme = urlsplit(settings.url).scheme or "file"
    common = {"use_listings_cache": False, "skip_instance_cache": True}
    match scheme:
        case "file" | "memory":
            return fsspec.filesystem(scheme, skip_instance_cache=True)
        case "s3":
            return fsspec.filesystem("s3", **common, **s3_options(settings))
        case _:
            token = {"token": settings.token} if settings.token else {}
            return fsspec.filesystem(scheme, **common, **token)


def s3_options(settings: SinkSettings) -> dict[str, Any]:
    """Options for s3fs. Servers other than AWS get checksums only where the protocol needs them."""
    endpoint = endpoint_of(settings)
    config: dict[str, Any] = {
        "connect_timeout": settings.connect_timeout_s,
        "read_timeout": settings.read_timeout_s,
        "retries": {"max_attempts": 1},  # we retry ourselves, for ever and with jitter
    }
    if endpoint and not (urlsplit(endpoint).hostname or "").endswith("amazonaws.com"):
        config["request_checksum_calculation"] = "when_required"
        config["response_checksum_validation"] = "when_required"
    options: dict[str, Any] = {"config_kwargs": config}
    given = {
        "key": settings.key,
        "secret": settings.secret,
        "token": settings.token,
        "endpoint_url": endpoint,
    }
    options.update({name: value for name, value in given.items() if value})
    if settings.region:
        options["client_kwargs"] = {"region_name": settings.region}
    return options


def endpoint_of(settings: SinkSettings) -> str | None:
    """Return the S3 endpoint from the settings, else from the environment; None means AWS."""
    return (
        settings.endpoint_url
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )


def explain(settings: SinkSettings, error: BaseException, what: str = "write to") -> str:
    """Say what failed where, without a secret."""
    endpoint = endpoint_of(settings) if settings.url.startswith("s3:") else None
    where = f"{settings.url} at {endpoint}" if endpoint else settings.url
    text = f"{type(error).__name__}: {error}"
    for secret in (settings.secret, settings.token, settings.key):
        if secret:
            text = text.replace(secret, "***")
    return f"cannot {what} {where}: {text}"
