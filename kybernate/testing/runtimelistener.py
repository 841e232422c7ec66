"""The agent's end of the runtime's socket, under a test's hand: keeps what it is told."""

import socketserver
import threading
from collections.abc import Callable
from pathlib import Path

from kybernate.clients import runtimecalls
from kybernate.clients.runtimecalls import LONGEST, Call, Op, reply

Answer = dict[str, str]
_LOOK_S = 0.02


def agree(call: Call) -> Answer:
    """What an agent says that has no objection and knows of nobody who waits."""
    if call.op is Op.STATE:
        return {"ok": "known", "held": "no", "state": "Active"}
    if call.op is Op.PROBE:
        return {"ok": "answered", "passed": "yes"} if call.ended == "exit 0" else {"ok": "run"}
    return {"ok": "cold" if call.op is Op.CREATING else "heard"}


class RuntimeListener:
    """Listens while it is started; may be started again. `answer` may be replaced at any time."""

    def __init__(self, path: Path, answer: Callable[[Call], Answer] = agree) -> None:
        self.path, self.answer = path, answer
        self.calls: list[Call] = []
        self._server: socketserver.ThreadingUnixStreamServer | None = None

    def __enter__(self) -> "RuntimeListener":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen."""
        self.path.unlink(missing_ok=True)
        owner = self

        class Conversation(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(owner.hear(self.rfile.readline(LONGEST)))

        server = socketserver.ThreadingUnixStreamServer(str(self.path), Conversation)
        server.daemon_threads = True
        self._server = server
        threading.Thread(target=server.serve_forever, args=(_LOOK_S,), daemon=True).start()

    def stop(self) -> None:
        """Be away."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self.path.unlink(missing_ok=True)
            self._server = None

    def hear(self, line: bytes) -> bytes:
        """Keep a request, and the reply to it."""
        call = runtimecalls.decode(line)
        self.calls.append(call)
        return reply(**self.answer(call))

    def told(self, op: Op, pod: str = "") -> list[Call]:
        """What was said of a pod, or of all."""
        return [call for call in self.calls if call.op is op and pod in ("", call.pod.name)]
