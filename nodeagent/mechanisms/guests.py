"""
The guests that are connected: processes with libkybguest.so that use the driver.

Called by `guest`, the mechanism. Guests connect to us, again and again while we are away, so after
an agent's restart they are back within a quarter of a second.
Rule: who a guest is, the kernel says (its process number), not the guest.
"""

import os
import select
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kybernate.clients.errors import Retry
from kybernate.runtime.logs import get_logger
from nodeagent.mechanisms import NotPossible, guestwire
from nodeagent.mechanisms.guestwire import Answer, Malformed, OtherProtocol, Verb

_HELLO_S = 5.0
_MOST = 1024  # connections; a workload may open as many as it likes
_CREDENTIALS = struct.Struct("3i")


class GuestAway(Retry):
    """A guest did not answer, or said what it cannot mean."""


@dataclass(slots=True)
class Guest:
    """One process. One request at a time; thread safe."""

    pid: int
    nonce: bytes
    _socket: socket.socket
    _lock: threading.Lock

    def ask(  # the request's fields, and how long
        self,
        verb: Verb,
        limit: float,
        *,
        first: int = 0,
        count: int = guestwire.BATCH,
        card: bytes = b"",
        to: bytes = b"",
    ) -> tuple[Answer, list[int]]:
        """Its answer and the descriptors, which are the caller's to close. Raises GuestAway."""
        packet = guestwire.request(
            verb, first=first, count=count, card=card, milliseconds=int(limit * 1000), to=to
        )
        with self._lock:
            try:
                self._socket.settimeout(limit + _HELLO_S)
                self._socket.send(packet)
                return _received(self._socket, verb)
            except (OSError, EOFError, Malformed) as error:
                self._socket.close()  # half an answer may still come: the next one is a new start
                raise GuestAway(f"the guest of process {self.pid} is away: {error!r}") from error

    @property
    def is_here(self) -> bool:
        """Whether it has not hung up, nor failed to answer, since it said hello."""
        number = self._socket.fileno()
        if number < 0:
            return False
        looking = select.poll()
        looking.register(number, 0)  # that the other end is closed is told unasked
        return not looking.poll(0)

    def close(self) -> None:
        """Forget it."""
        self._socket.close()


class Guests:
    """Where guests connect, and who is there. `path` is the socket."""

    def __init__(self, path: Path) -> None:
        """Listens from now on. Raises OSError."""
        self._guests: dict[int, Guest] = {}
        self._strange: dict[int, str] = {}  # whose protocol is another one
        self._changed = threading.Condition()
        self._closed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        path.chmod(0o666)  # any user in a container; who it is, the kernel says
        self._listener.listen(128)
        threading.Thread(target=self._accept, name="guests", daemon=True).start()

    def of(self, pid: int) -> Guest | None:
        """The guest in a process; none while it is away."""
        with self._changed:
            guest = self._guests.get(pid)
            return guest if guest is not None and guest.is_here else None

    def all(self) -> tuple[Guest, ...]:
        """Those that are here, by process."""
        with self._changed:
            return tuple(self._guests[pid] for pid in sorted(self._here()))

    def await_all(self, pids: frozenset[int], limit: float) -> bool:
        """Until all of these processes have said hello. Raises NotPossible where one says it in
        another protocol."""
        with self._changed:
            self._changed.wait_for(
                lambda: pids <= self._here() or not self._strange.keys().isdisjoint(pids), limit
            )
            for pid in sorted(pids & self._strange.keys()):
                raise NotPossible(
                    f"the guest library in process {pid} is of another version ("
                    f"{self._strange[pid]}): its container has to be started anew"
                )
            return pids <= self._here()

    def close(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            self._closed = True
            for guest in self._guests.values():
                guest.close()

    def _here(self) -> set[int]:
        return {pid for pid, guest in self._guests.items() if guest.is_here}

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(one,), daemon=True).start()

    def _greet(self, one: socket.socket) -> None:
        pid = _CREDENTIALS.unpack(
            one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )[0]
        try:
            one.settimeout(_HELLO_S)
            hello, _ = _received(one, Verb.HELLO)
        except (OSError, EOFError, Malformed) as error:
            one.close()
            self._not_understood(pid, error)
            return
        guest = Guest(pid, hello.nonce, one, threading.Lock())
        with self._changed:
            self._drop_ended()
            if self._closed or len(self._guests) >= _MOST:
                one.close()
                return
            old = self._guests.pop(pid, None)
            self._strange.pop(pid, None)
            self._guests[pid] = guest
            self._changed.notify_all()
        if old is not None:
            old.close()

    def _not_understood(self, pid: int, error: Exception) -> None:
        """Said once of each: it tries again five times a second."""
        with self._changed:
            self._drop_ended()
            if pid in self._strange:
                return
            if isinstance(error, OtherProtocol):
                self._strange[pid] = str(error)
                self._changed.notify_all()
        get_logger().warning("a guest was not understood", pid=pid, why=str(error))

    def _drop_ended(self) -> None:
        for pid in [pid for pid in self._guests if not Path(f"/proc/{pid}").exists()]:
            self._guests.pop(pid).close()
        self._strange = {p: why for p, why in self._strange.items() if Path(f"/proc/{p}").exists()}


def _received(source: socket.socket, verb: Verb) -> tuple[Answer, list[int]]:
    """The answer to a verb; descriptors only where they belong."""
    packet, descriptors, flags, _ = socket.recv_fds(source, guestwire.ANSWER_ROOM, guestwire.BATCH)
    try:
        if not packet:
            raise EOFError("it hung up")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise Malformed("a packet that is too long")
        answer = guestwire.answer(packet)
        shared = answer.count if verb in (Verb.EXPORT, Verb.BACK) else 0
        if answer.verb is not verb or len(descriptors) != shared:
            raise Malformed(f"{answer.verb.name} with {len(descriptors)} descriptors")
    except BaseException:
        closed(descriptors)
        raise
    return answer, descriptors


def closed(descriptors: list[int]) -> None:
    """Close them all."""
    for one in descriptors:
        os.close(one)
