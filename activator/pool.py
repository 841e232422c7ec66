"""
Connections to models that are idle, kept for the next request to the same pod.

Called by: `exchange`. Rule: they are kept for less than servers keep theirs (uvicorn, and so vLLM,
closes after 5 s): a request that is not repeatable must not meet a connection that is being closed.
A pod that is gone, or parked and back, has its connections told apart by its uid.
"""

import asyncio
import contextlib
import socket
from collections import defaultdict

from activator.models import Place
from activator.upstream import Upstream

IDLE_S = 4.0
MOST_IDLE = 64  # for each pod


class Pool:
    """Idle connections, newest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._idle: dict[str, list[Upstream]] = defaultdict(list)

    def take(self, place: Place) -> Upstream | None:
        """One that can be used at once."""
        idle = self._idle.get(place.uid)
        while idle:
            found = idle.pop()
            if not found.lost and self._loop.time() - found.idle_since < IDLE_S:
                return found
            found.close()
        return None

    def keep(self, place: Place, upstream: Upstream) -> None:
        """It may be used again."""
        idle = self._idle[place.uid]
        if len(idle) >= MOST_IDLE:
            upstream.close()
            return
        upstream.idle_since = self._loop.time()
        idle.append(upstream)

    async def connect(self, place: Place, within: float) -> Upstream:
        """A new one. Raises OSError, TimeoutError."""
        async with asyncio.timeout(within):
            _, upstream = await self._loop.create_connection(Upstream, place.address, place.port)
        raw = upstream.transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return upstream

    def sweep(self) -> None:
        """Close what was idle for long. Called every second or so."""
        now = self._loop.time()
        for uid, idle in list(self._idle.items()):
            for one in [one for one in idle if one.lost or now - one.idle_since >= IDLE_S]:
                idle.remove(one)
                one.close()
            if not idle:
                del self._idle[uid]

    def close(self) -> None:
        """All of them."""
        for idle in self._idle.values():
            for one in idle:
                one.close()
        self._idle.clear()
