"""Releases of one application, as changed documents, and processes whose wall clock can be set."""

from pathlib import Path
from typing import Any, assert_never

from tests.e2e.application import REPOSITORY, merge
from tests.e2e.blows import Change


def changed(document: dict[str, Any], change: Change, folder: Path) -> dict[str, Any]:
    """The next release after ``document``; ``folder`` is where its code lies."""
    match change:
        case (
            Change.ARGS
        ):  # another file age and other limits: replicas and agents are both replaced
            args = {"capture": {"batch_rows": 200}, "agent": {"file_max_age_s": 2}}
            return with_application(document, {"args": args})
        case Change.CODE:
            (folder / "release_two.py").write_text(RELEASE_TWO)
            return with_application(document, {"import_path": "release_two:build"})
        case Change.REPLICAS:
            (deployment,) = document["applications"][0]["deployments"]
            return with_application(document, {"deployments": [deployment | {"num_replicas": 1}]})
        case _:
            assert_never(change)


def with_application(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    (application,) = document["applications"]
    return document | {"applications": [merge(application, changes)]}


# The same application, whose answers say that they are new.
RELEASE_TWO = """
from serve_app import app, model_server
from serve_app.http.asgi import Application


class Tagged(Application):
    async def __call__(self, scope, receive, send):
        async def tagged(message):
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"x-release", b"2")]
                message = {**message, "headers": headers}
            await send(message)

        await super().__call__(scope, receive, tagged)


class ModelServer(model_server.ModelServer):
    def __serve_build_asgi_app__(self):
        inner = super().__serve_build_asgi_app__()
        inner.__class__ = Tagged  # an Application still: requests take the fast path
        return inner


app.ModelServer = ModelServer
build = app.build
"""


def with_own_folder(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let replicas and agents import from ``folder`` before the checkout, and read its clock."""
    (folder / "sitecustomize.py").write_text(SCRIPTED_CLOCK.format(file=str(clock_file(folder))))
    path = {"env_vars": {"PYTHONPATH": f"{folder}:{REPOSITORY}"}}
    return with_application(document, {"runtime_env": path})


def set_clocks(folder: Path, ahead_s: float) -> None:
    """Set the wall clocks of the processes that read them from ``folder``."""
    clock_file(folder).write_text(str(ahead_s))


def clock_file(folder: Path) -> Path:
    return folder / "clock"


# Python runs this before anything else in every process that finds it on its path. The monotonic
# clock goes on as it does.
SCRIPTED_CLOCK = """
import os
import time

real_ns = time.time_ns


def ahead_ns():
    try:
        with open({file!r}) as file:
            return int(float(file.read() or 0) * 1e9)
    except OSError:
        return 0


time.time_ns = lambda: real_ns() + ahead_ns()
time.time = lambda: time.time_ns() / 1e9
"""
