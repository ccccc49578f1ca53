from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from serve_app.demo import read_credit, request_rows
from tests.e2e.application import Application, quickstart
from tests.e2e.s3 import FaultProxy, S3Server
from tests.e2e.started import started


@pytest.fixture(scope="session")
def body() -> bytes:
    """A request of one real row."""
    return msgspec.json.encode({"instances": request_rows(read_credit(), 1)})


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo bundle, made as `treeline demo` makes it."""
    from serve_app.cli.main import main

    root = tmp_path_factory.mktemp("models")
    with pytest.raises(SystemExit) as done:
        main(["demo", "--root", str(root)])
    assert done.value.code == 0
    return root


@pytest.fixture(scope="session")
def versions_root(demo_root: Path) -> Path:
    """The demo bundle and two further versions beside it."""
    from serve_app.cli.main import main

    for version in ("1.1.0", "1.2.0"):
        with pytest.raises(SystemExit) as done:
            main(["demo", "--root", str(demo_root), "--version", version])
        assert done.value.code == 0
    return demo_root


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Iterator[Application]:
    """The quickstart as it is shipped, in a folder of its own; shared by a module's tests."""
    document = quickstart(args={"model_root": str(demo_root)})
    with started(Application(tmp_path_factory.mktemp("app"), document)) as running:
        yield running


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with started(S3Server(tmp_path_factory.mktemp("s3"))) as server:
        yield server


@pytest.fixture(scope="module")
def s3_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """Stands in front of the server; passes until it is told otherwise."""
    with started(FaultProxy(s3_server.port)) as proxy:
        yield proxy
