import asyncio
from collections.abc import Awaitable

import msgspec
import pytest

from monitoring.capture.agent_transport import AgentTransport
from monitoring.errors import DeliveryRejected
from monitoring.events import Ack


class Handle:
    """An actor handle that answers, or fails, when awaited."""

    def __init__(self, answer: Ack | bytes | Exception | None) -> None:
        self.answer = answer
        self.calls = 0
        self.ingest = self

    def remote(self, payload: bytes, /) -> Awaitable[Ack | bytes]:
        self.calls += 1
        future: asyncio.Future[Ack | bytes] = asyncio.get_running_loop().create_future()
        match self.answer:
            case Exception() as error:
                future.set_exception(error)
            case None:
                pass
            case answer:
                future.set_result(answer)
        return future


async def test_the_handle_is_kept_while_it_answers() -> None:
    ack = Ack("p", 3)
    handle, lookups = Handle(ack), []

    def lookup() -> Handle:
        lookups.append(1)
        return handle

    transport = AgentTransport(lookup)
    assert await transport.ingest(b"") == ack
    handle.answer = msgspec.msgpack.encode(ack)
    assert await transport.ingest(b"") == ack
    assert (len(lookups), handle.calls) == (1, 2)


@pytest.mark.parametrize("error", [RuntimeError("actor died"), DeliveryRejected("unknown policy")])
async def test_after_a_failure_it_is_looked_up_again(error: Exception) -> None:
    handles = [Handle(error), Handle(Ack("p", 1))]
    transport = AgentTransport(lambda: handles.pop(0))
    with pytest.raises(type(error)):
        await transport.ingest(b"")
    assert await transport.ingest(b"") == Ack("p", 1)


async def test_no_agent_and_no_answer_are_failures() -> None:
    def nobody() -> Handle:
        raise ValueError("no such actor")

    with pytest.raises(ValueError, match="no such actor"):
        await AgentTransport(nobody).ingest(b"")
    with pytest.raises(TimeoutError):
        await AgentTransport(lambda: Handle(None), timeout_s=0).ingest(b"")
