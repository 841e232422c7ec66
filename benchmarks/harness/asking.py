"""
A load generator and a model that answers at once, as programs: what they cost is not Python's HTTP.

    python -m benchmarks.harness.asking serve --port P
    python -m benchmarks.harness.asking load --port P --clients N --seconds S --model NAME

`load` prints one line of JSON: requests a second, and the percentiles of their seconds. Each client
asks anew as soon as it has its answer.
"""

import argparse
import asyncio
import json
import re
import time
from typing import Any, cast

BODY = b'{"object": "chat.completion", "choices": [{"message": {"content": "%b"}}]}' % (b"x" * 400)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)


_SIZE = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")
_LENGTH = b"Content-Length: %d" % len(BODY)


class Model(asyncio.Protocol):
    """One answer for each request; a proxy may send head and body apart."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport, self._heard = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._heard += data
        head, complete, body = self._heard.partition(b"\r\n\r\n")
        size = _SIZE.search(head)
        if complete and len(body) >= (int(size[1]) if size else 0):
            self._heard = b""
            self._transport.write(ANSWER)


class Client(asyncio.Protocol):
    """Asks until `end`."""

    def __init__(self, request: bytes, end: float, took: list[float]) -> None:
        self._request, self._end, self._took = request, end, took
        self._heard, self._at = b"", 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._heard += data
        head, complete, _ = self._heard.partition(b"\r\n\r\n")
        if complete and _LENGTH not in head:  # somebody else's answer, which has no such end
            self._fail(RuntimeError(self._heard[:200].decode(errors="replace")))
        elif self._heard.endswith(BODY):
            self._heard_all()

    def _heard_all(self) -> None:
        now = time.perf_counter()
        self._took.append(now - self._at)
        if not self._heard.startswith(b"HTTP/1.1 200"):
            self._fail(RuntimeError(self._heard[:200].decode(errors="replace")))
        elif now < self._end:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        if time.perf_counter() < self._end:
            self._fail(RuntimeError(f"closed: {error} {self._heard[:300]!r}"))
        elif not self.over.done():
            self.over.set_result(None)

    def _ask(self) -> None:
        self._heard = b""
        self._at = time.perf_counter()
        self._transport.write(self._request)

    def _fail(self, error: Exception) -> None:
        self._transport.abort()
        if not self.over.done():
            self.over.set_exception(error)


async def serve(port: int) -> None:
    """Until it is killed."""
    server = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", port)
    print(f"serving on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


async def load(port: int, clients: int, seconds: float, model: str) -> dict[str, float]:
    """What it took."""
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "y" * 200}]}
    body = json.dumps(asked).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: models\r\nAccept: */*\r\n"
    kind = b"Content-Type: application/json\r\nAuthorization: Bearer 0123456789\r\n"
    request = head + kind + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    took: list[float] = []
    began = time.perf_counter()
    made = [
        await asyncio.get_running_loop().create_connection(
            lambda: Client(request, began + seconds, took), "127.0.0.1", port
        )
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.over for _, client in made))
    ordered = sorted(took)
    return {
        "per_second": len(took) / (time.perf_counter() - began),
        "p50": ordered[len(ordered) // 2],
        "p95": ordered[int(len(ordered) * 0.95)],
        "p99": ordered[int(len(ordered) * 0.99)],
    }


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="asking")
    parser.add_argument("kind", choices=("serve", "load"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--model", default="llama")
    parser.add_argument("--vram", help="for nodes, which say it to every model; unused")
    asked = parser.parse_args()
    if asked.kind == "serve":
        asyncio.run(serve(asked.port))
    else:
        found = asyncio.run(load(asked.port, asked.clients, asked.seconds, asked.model))
        print(json.dumps(found))


if __name__ == "__main__":
    main()
