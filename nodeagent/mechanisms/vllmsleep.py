"""
Parking by the server itself: vLLM's sleep mode (`kyb.ai/park: vllm-sleep`).

Its weights go to host memory of its own and come back from there; what the pool keeps of it is a
note of a few bytes per card, so that stories and recovery find their parts. What is verified is
what can be: that it says it sleeps, that the same server with the same models woke, and (by the
stories) that the cards show the room. Bytes are not compared: the contents never leave vLLM.
The key-value cache is forgotten at every park.

Rules: nothing is put to sleep under a request: `lock` waits for the server's own metrics to show
none, and its frozen process takes no new one. It is thawed before it is asked anything.
A sleeping server cannot be sealed: its contents are not ours to copy.
"""

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Mapping

from kybernate.clients.clock import Clock
from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import GpuUuid
from nodeagent.disk.pool import Kept, Slot
from nodeagent.linux import processes
from nodeagent.linux.freezer import Freezing
from nodeagent.mechanisms import Body, BodyGone, Moved, NotPossible, NotYet, Part, Stands
from nodeagent.mechanisms.listening import Address, addresses
from nodeagent.mechanisms.vllmserver import Server

Holdings = Callable[[Body], Mapping[GpuUuid, int]]
"""Bytes a workload's processes hold on each of its cards now. May raise a Retry."""
Reach = Callable[[Body, Address, float], socket.socket]
"""A connection to an address in the workload's network, with a time limit. Raises OSError."""

WAKE_S = 120.0  # 140 GiB over a slow bus, and then some
_LOOK_S = 0.05
_FIND_S = 2.0
_NEVER = threading.Event()
_NO_SEAL = "a vLLM that parks by sleeping keeps its contents to itself: it cannot be sealed"


class VllmSleep:
    """A `Mechanism`."""

    name = "vllm-sleep"

    def __init__(self, freezer: Freezing, clock: Clock, reach: Reach, holdings: Holdings) -> None:
        self._freezer, self._clock = freezer, clock
        self._reach, self._holdings = reach, holdings
        self._found: dict[str, Address] = {}  # by uid and start: a search asks strangers' ports
        self._sizes: dict[str, Mapping[GpuUuid, int]] = {}
        self._waking = threading.Lock()  # parts on different cards come in at once

    def stands(self, body: Body) -> Stands:  # noqa: ARG002
        """The server keeps it."""
        return Stands.PROCESS

    def lock(self, body: Body, limit: float) -> None:
        """As the port says: none of its requests runs or waits when this returns."""
        server = self._server(body)
        if server.sleeping():
            return
        until = self._clock.monotonic() + limit
        while there := server.requests():
            if self._clock.monotonic() >= until:
                raise NotYet(f"{there} requests run in the server after {limit:g} s")
            self._clock.wait(_NEVER, _LOOK_S)

    def unlock(self, body: Body, limit: float) -> None:  # noqa: ARG002
        """As the port says. A server that sleeps is not opened."""
        if self._server(body).sleeping():
            raise NotYet("the server sleeps")

    def parts(self, body: Body) -> tuple[Part, ...]:
        """One for each card: backed while it is awake. A frozen one sleeps, for only what sleeps is
        frozen; it is not thawed to be asked: requests that wait for it would be let in."""
        note = b""
        if not self._freezer.frozen(body.pid, body.container_id):
            server = self._server(body)
            if not server.sleeping():
                self._sizes[body.uid] = dict(self._holdings(body))
                note = self._note(body, server)
        sizes = self._sizes.get(body.uid, {})
        return tuple(
            Part(
                name=f"vllm/{card}",
                uuid=card,
                size=sizes.get(card, 0),
                content=len(note),
                backed=bool(note),
                digest=_digest(note) if note else "",
            )
            for card in body.gpus
        )

    def copy_out(self, body: Body, part: Part, slot: Slot, moved: Moved) -> Kept:  # noqa: ARG002
        """The note only; the contents move when the server goes to sleep."""
        note = self._note(body, self._server(body))
        content, digest = slot.write(part.name, iter([note]))
        return Kept(name=part.name, uuid=part.uuid, size=part.size, content=content, digest=digest)

    def release(self, body: Body, part: Part, limit: float) -> None:  # noqa: ARG002
        """As the port says: the first part's has the whole server sleep."""
        server = self._server(body)
        if server.sleeping():
            return
        if there := server.requests():
            raise NotYet(f"{there} requests began meanwhile")
        server.sleep(max(limit, WAKE_S))
        if not server.sleeping():
            raise NotYet("the server said it would sleep, and is awake")

    def copy_in(self, body: Body, kept: Kept, slot: Slot, moved: Moved) -> str:
        """As the port says: the first part's wakes the whole server."""
        b"".join(slot.read(kept.name))  # raises Damaged where even the note is
        server = self._server(body)
        with self._waking:
            if server.sleeping():
                server.wake_up(WAKE_S)
                if server.sleeping():
                    raise NotYet("the server said it would wake up, and sleeps")
        moved(kept.size)
        return _digest(self._note(body, server))

    def let_go(self, body: Body, limit: float) -> str:  # noqa: ARG002
        """Never."""
        raise NotPossible(_NO_SEAL)

    def adopt(self, body: Body, known: str) -> None:  # noqa: ARG002
        """Never."""
        raise NotPossible(_NO_SEAL)

    def forget(self, body: Body) -> None:
        """As the port says."""
        self._sizes.pop(body.uid, None)
        self._found.pop(body.uid, None)

    def probe(self, uuid: GpuUuid) -> tuple[int, float] | None:  # noqa: ARG002
        """Unknown: only servers move anything."""
        return None

    def _note(self, body: Body, server: Server) -> bytes:
        """What tells this very server: its process, version and models."""
        since = processes.started(body.pid)
        return json.dumps([body.uid, body.pid, since, server.identity()]).encode()

    def _server(self, body: Body) -> Server:
        """Where it listens. Raises BodyGone, NotPossible, NotYet."""
        if processes.started(body.pid) is None:
            raise BodyGone(f"process {body.pid} has ended")
        self._freezer.thaw(body.pid, body.container_id)
        if body.uid not in self._found:
            self._found[body.uid] = self._search(body)
        return self._at(body, self._found[body.uid])

    def _at(self, body: Body, address: Address) -> Server:
        return Server(lambda limit: self._reach(body, address, limit))

    def _search(self, body: Body) -> Address:
        """The listener that speaks vLLM's language. The most telling refusal where none does."""
        why: Refused | Retry = NotYet("no process of the workload listens yet")
        until = self._clock.monotonic() + _FIND_S
        for address in addresses(body.pid):
            try:
                self._at(body, address).sleeping()
            except (NotPossible, NotYet) as error:
                why = error
            else:
                return address
            if self._clock.monotonic() > until:
                break
        raise why


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()
