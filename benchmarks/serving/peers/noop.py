"""The least an HTTP server can do: read the body, send as many bytes as Treeline answers.

`app` runs under bare uvicorn, `NoOp` as Ray Serve's raw ASGI ingress.
"""

import os
from typing import Any

BODY = b"x" * int(os.environ["BENCH_RESPONSE_BYTES"])
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
