"""Calls between the agent and the process that counts for it, over the latter's standard streams.

A frame is 4 bytes of length and MessagePack. Calls carry numbers; answers come in any order. The
end of standard input ends the process: no agent, nothing to count for.
"""

from typing import IO, Literal, TypeVar

import msgspec

from monitoring.agent.health import Kind


class Call(msgspec.Struct, frozen=True, array_like=True):
    number: int
    method: str
    body: bytes


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """``error`` says in words what went wrong; ``body`` is empty then."""

    number: int
    body: bytes
    error: str | None = None


class Segments(msgspec.Struct, frozen=True, array_like=True):
    """Paths of spool segments with the byte up to which they hold whole frames.

    ``health`` is what an agent says of its capture, by kind; nothing where all is well.
    """

    places: list[tuple[str, int]]
    health: dict[Kind, str] = {}


What = Literal["windows", "quality", "feedback", "drift", "alerts"]


class Question(msgspec.Struct, frozen=True):
    """What somebody wants to see; times in seconds since 1970. ``summary`` is for metrics."""

    what: What | Literal["summary"]
    level_s: int = 60
    start_s: float | None = None
    end_s: float | None = None
    model: str | None = None
    version: str | None = None


_Frame = TypeVar("_Frame", Call, Answer, bytes)


def write_frame(stream: IO[bytes], frame: object) -> None:
    data = msgspec.msgpack.encode(frame)
    stream.write(len(data).to_bytes(4, "little") + data)
    stream.flush()


def read_frame(stream: IO[bytes], kind: type[_Frame]) -> _Frame | None:
    """Read one frame; None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    return msgspec.msgpack.decode(stream.read(int.from_bytes(head, "little")), type=kind)
