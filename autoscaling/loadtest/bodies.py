"""Request bodies, encoded before the run so that sending one costs no encoding."""

from pathlib import Path
from typing import Any, Final

import msgspec

from autoscaling.errors import in_words
from autoscaling.loadtest.errors import BodyInvalid
from autoscaling.loadtest.plan import Kind

INSTANCES: Final = "instances"
# Enough different bodies that no cache on the way answers in place of the model.
MAX_BODIES_PER_KIND: Final = 64
MAX_BYTES_PER_KIND: Final = 8 << 20


def read_sample(path: Path) -> dict[str, Any]:
    """Read a JSON body for ``POST /predict``; BodyInvalid when it is none."""
    try:
        body = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as exc:
        raise BodyInvalid(f"--body {path}: {in_words(exc)}") from exc
    return check_sample(body, source=f"--body {path}")


def check_sample(body: Any, *, source: str) -> dict[str, Any]:
    """Answer the body itself when it is an object with at least one row under ``instances``."""
    if not isinstance(body, dict):
        raise BodyInvalid(f"{source}: a JSON object is needed, not {type(body).__name__}")
    rows = body.get(INSTANCES)
    if not isinstance(rows, list) or not rows:
        raise BodyInvalid(f"{source}: `{INSTANCES}` must be a list with at least one row")
    return body


def encode_bodies(sample: dict[str, Any], kind: Kind) -> tuple[bytes, ...]:
    """Cut the sample's rows into bodies of ``kind.rows`` rows; after the last the first come again.

    What else the sample holds (``top_k``, ``context``) goes into every body. Answers one body per
    possible cut, at most 64 and at most 8 MB of them, and at least one.
    """
    rows = [msgspec.json.encode(row) for row in sample[INSTANCES]]
    others = {key: value for key, value in sample.items() if key != INSTANCES}
    bodies: list[bytes] = []
    size = 0
    for number in range(min(MAX_BODIES_PER_KIND, len(rows))):
        first = number * kind.rows
        cut = [msgspec.Raw(rows[(first + row) % len(rows)]) for row in range(kind.rows)]
        body = msgspec.json.encode({INSTANCES: cut, **others})
        size += len(body)
        if bodies and size > MAX_BYTES_PER_KIND:
            break
        bodies.append(body)
    return tuple(bodies)
