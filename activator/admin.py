"""
What people see: the page with its stream of events, and `/debug/view`, on an address of its own.

Called by: `process`. The stream carries the board whenever it changed, at most five times a second,
and every two seconds where it did not, so that a connection that is dead is noticed. Rule: it
looks, and changes nothing. Rule: a browser may come from anywhere, so pages of others are refused.
"""

import asyncio
from collections.abc import Callable

import orjson

from activator import messages
from activator.front import Front
from activator.memory import Memory
from activator.messages import Request
from activator.page import EVENTS, HEADERS, STATE, Board, asset, frame
from activator.view import Json

EVERY_S = 0.2
AT_LEAST_S = 2.0
MOST_BODY = 1 << 16
MOST_FRONTS = 64


class Admin:
    """A desk of its own for those who look."""

    most_body = MOST_BODY

    def __init__(self, look: Callable[[], Json], board: Board) -> None:
        self._look, self._board = look, board
        self.memory = Memory(MOST_BODY * MOST_FRONTS)
        self._loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = self._loop.time
        self._fronts: set[Front] = set()
        self._streams: set[Front] = set()

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
        elif path == STATE:
            front.answer(200, orjson.dumps(self._board.snapshot()) + b"\n", more=_GUARDED)
        elif path in (EVENTS, "/events"):
            self._stream(front, request)
        else:
            self._page(front, path)

    async def tell(self) -> None:
        """Keep the streams up to date, for as long as this runs."""
        version, told = 0, 0.0
        while True:
            await asyncio.sleep(EVERY_S)
            due = self.now() - told > AT_LEAST_S
            if not self._streams or not (due or self._board.changed(version)):
                continue
            version, told = self._board.version, self.now()
            event = frame(self._board.snapshot())
            for front in self._streams:
                if not front.slow:
                    front.write(event)

    def __len__(self) -> int:
        return len(self._fronts)

    def close(self) -> None:
        """Let everybody go."""
        for front in list(self._fronts):
            front.transport.abort()

    def _page(self, front: Front, path: str) -> None:
        found = asset(path)
        if found is None:
            front.answer(404, b"no such page\n", content_type=b"text/plain")
        else:
            front.answer(200, found.body, content_type=found.content_type.encode(), more=_GUARDED)

    def _stream(self, front: Front, request: Request) -> None:
        request.keep = False
        headers = ((b"Content-Type", b"text/event-stream"), (b"Connection", b"close"), *_GUARDED)
        front.write(messages.head_bytes(200, b"", headers) + frame(self._board.snapshot()))
        self._streams.add(front)


_GUARDED = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())


def _foreign(request: Request) -> bool:
    fields = {name.lower(): value for name, value in request.headers}
    origin = fields.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != request.host
