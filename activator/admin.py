"""
What people see: `/debug/view` (JSON), `/events` (server-sent events), the page, on an address of
its own.

Called by: `process`. `event: view` carries the whole view whenever something changed, at most five
times a second, and at least every two seconds. Rule: it looks, and changes nothing. A browser may
come from anywhere, so an Origin of somebody else's page is refused.
"""

import asyncio
from collections.abc import Callable, Mapping

import orjson

from activator import messages
from activator.front import Front
from activator.messages import Request
from activator.view import Json

EVERY_S = 0.2
AT_LEAST_S = 2.0
MOST_BODY = 1 << 16
MOST_FRONTS = 64

Page = Mapping[str, tuple[bytes, bytes]]
"""Files by path: content type and content."""


class Admin:
    """A desk of its own for those who look."""

    most_body = MOST_BODY

    def __init__(self, look: Callable[[], Json], page: Page) -> None:
        self._look, self._page = look, page
        self._loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = self._loop.time
        self._fronts: set[Front] = set()
        self._streams: set[Front] = set()
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Something is different."""
        self._changed.set()

    def arrived(self, front: Front) -> bool:
        """Whether it may stay."""
        self._fronts.add(front)
        return len(self._fronts) <= MOST_FRONTS

    def left(self, front: Front) -> None:
        """It is gone."""
        self._fronts.discard(front)
        self._streams.discard(front)

    def take(self, front: Front, request: Request) -> None:
        """A request."""
        path = request.target.partition(b"?")[0].decode("latin-1")
        if request.method not in (b"GET", b"HEAD"):
            front.answer(405, b"GET only\n", content_type=b"text/plain")
        elif _foreign(request):
            front.answer(403, b"asked by another site's page\n", content_type=b"text/plain")
        elif path == "/debug/view":
            front.answer(200, orjson.dumps(self._look()) + b"\n")
        elif path == "/events":
            self._stream(front, request)
        else:
            found = self._page.get("/index.html" if path == "/" else path)
            kind, content = found or (b"text/plain", b"no such page\n")
            front.answer(200 if found else 404, content, content_type=kind)

    async def tell(self) -> None:
        """Keep the streams up to date, for as long as this runs."""
        while True:
            try:
                async with asyncio.timeout(AT_LEAST_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            if self._streams:
                event = self._event()
                for front in self._streams:
                    if not front.slow:
                        front.write(event)
            await asyncio.sleep(EVERY_S)

    def close(self) -> None:
        """Let everybody go."""
        for front in list(self._fronts):
            front.close()

    def _stream(self, front: Front, request: Request) -> None:
        request.keep = False
        headers = [
            (b"Content-Type", b"text/event-stream"),
            (b"Cache-Control", b"no-store"),
            (b"Connection", b"close"),
        ]
        front.write(messages.head_bytes(200, b"", headers) + self._event())
        self._streams.add(front)

    def _event(self) -> bytes:
        return b"event: view\ndata: " + orjson.dumps(self._look()) + b"\n\n"


def _foreign(request: Request) -> bool:
    fields = {name.lower(): value for name, value in request.headers}
    origin = fields.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != request.host
