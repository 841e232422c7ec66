"""
The runtime's socket: what makes containers tells of them, and asks how they stand.

Called by: `kybernate-runc`, the light node; the protocol is `kybernate/clients/runtimecalls.py`.
Rule: only root and the agent's own user are listened to, by the word of the kernel.
Rule: what was put down in the folder `untold` while nobody listened is taken up from there.
"""

import os
import socket
import socketserver
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from kybernate.api.errors import Malformed
from kybernate.clients import runtimecalls
from kybernate.clients.errors import Refused
from kybernate.clients.runtimecalls import LONGEST, Call, Op, reply
from kybernate.model.workload import State
from kybernate.runtime.logs import get_logger
from nodeagent.containers.learning import Containers
from nodeagent.disk.announcements import Created
from nodeagent.linux import processes
from nodeagent.probing.prober import Prober
from nodeagent.turns.coordinator import Coordinator

_READ_S = 2.0  # a caller that says nothing for so long is let go
_LOOK_S = 0.25  # between looks for what was not told
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
_HEARD = {"ok": "heard"}


class Wakes(Protocol):
    """What makes containers from checkpoints: `nodeagent.waking.wakings`."""

    def arriving(self, call: Call) -> Mapping[str, str]:
        """Whether what the pod wakes from is here; answered within the runtime's patience."""

    def creating(self, call: Call) -> Mapping[str, str]:
        """How it is to be made; answered within the runtime's patience."""

    def held(self, call: Call) -> None:
        """It was restored and stands. Raises Refused, OSError."""

    def made_cold(self, call: Call) -> None:
        """It is held at its FIFO, whatever was answered."""

    def ended(self, call: Call) -> None:
        """It ended, or was never made."""


class RuntimeSocket:
    """`start` and `stop` once each."""

    def __init__(
        self,
        containers: Containers,
        coordinator: Coordinator,
        prober: Prober,
        wakings: Wakes,
    ) -> None:
        self._containers, self._coordinator = containers, coordinator
        self._prober, self._wakings = prober, wakings
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, path: Path) -> None:
        """Listen. Raises OSError where that cannot be."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of an agent before us
        self._server = _Server(path, self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_LOOK_S,), name="runtime", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End; who comes from now on finds nobody, and puts down what there is to say."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def answer(self, line: bytes) -> bytes:
        """The reply to a request's line."""
        try:
            call = runtimecalls.decode(line)
            return reply(**self._done(call))
        except (Malformed, ValueError, Refused) as error:
            return reply(error=str(error))
        except OSError as error:  # not written down, so not heard
            return reply(error=str(error), again="yes")

    def _done(self, call: Call) -> Mapping[str, str]:
        match call.op:
            case Op.ARRIVING:
                return self._wakings.arriving(call)
            case Op.CREATING:
                return self._wakings.creating(call)
            case Op.HELD if call.restored:
                self._wakings.held(call)
            case Op.HELD:
                self._wakings.made_cold(call)
                created = _created(call)
                if created is not None:
                    self._containers.created(created)
            case Op.ENDED:
                self._wakings.ended(call)
                self._containers.exited(call.pod, call.container_id)
            case Op.STATE:
                return self._standing(call)
            case Op.PROBE:
                return self._prober.answer(call)
        return _HEARD

    def _standing(self, call: Call) -> dict[str, str]:
        tenancy = self._coordinator.books.tenancies.get(call.pod)
        state = tenancy.state if tenancy and tenancy.uid == call.uid else State.ABSENT
        if state is State.ABSENT and self._containers.announced(call.pod, call.uid):
            state = State.WAITING  # its pod or its seat is not known yet; to probe it would kill it
        held = state not in (State.ACTIVE, State.ABSENT)
        said = {"ok": "known", "held": "yes" if held else "no", "state": state.value}
        if held:
            said["say"] = f"{call.pod} is {state.value}: it does not have its GPU now"
        return said


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, path: Path, owner: RuntimeSocket) -> None:
        self.owner = owner
        self._untold = path.with_name(runtimecalls.UNTOLD)
        before = os.umask(0o177)  # never, not for a moment, open to others
        try:
            super().__init__(str(path), _Conversation)
        finally:
            os.umask(before)

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002
        """Whether the caller may speak."""
        assert isinstance(request, socket.socket)
        raw = request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(raw)
        if uid in (0, os.geteuid()):
            return True
        get_logger(uid=uid).warning("a caller on the runtime's socket was turned away")
        return False

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """A caller that went away is no matter."""
        get_logger().debug("a call on the runtime's socket broke off", exc_info=True)

    def service_actions(self) -> None:
        """Take up what was put down while nobody listened."""
        try:
            for path in sorted(self._untold.iterdir()):
                if path.suffix == ".json":
                    self._take_up(path)
        except FileNotFoundError:
            pass
        except Exception:  # this is the thread that listens: it must not end
            get_logger().exception("what was put down is not taken up")

    def _take_up(self, path: Path) -> None:
        try:
            said = self.owner.answer(path.read_bytes()[:LONGEST])
        except OSError as error:
            get_logger(path=str(path)).warning("cannot be read", why=str(error))
            return
        if b'"again"' in said:
            return
        if b'"error"' in said:
            get_logger(path=str(path)).error("put down and not understood", why=said.decode())
        path.unlink(missing_ok=True)


class _Conversation(socketserver.StreamRequestHandler):
    timeout = _READ_S
    server: _Server

    def handle(self) -> None:
        """One line, one answer."""
        line = self.rfile.readline(LONGEST + 1)
        if len(line) > LONGEST:
            self.wfile.write(reply(error=f"a request has at most {LONGEST} bytes"))
        elif line:
            self.wfile.write(self.server.owner.answer(line))


def _created(call: Call) -> Created | None:
    """None for a process that is gone already."""
    started = processes.started(call.pid)
    if started is None or call.started not in (0, started) or call.fifo is None:
        return None
    return Created(
        key=call.pod,
        uid=call.uid,
        container=call.container,
        container_id=call.container_id,
        pid=call.pid,
        pid_started=started,
        exec_fifo=call.fifo,
    )
