"""
A gRPC probe: Check of grpc.health.v1. Called by `actions`.

gRPC's library makes its connections itself, in its own threads, so it speaks to a socket of ours
that leads into the pod's network namespace.
"""

import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import grpc

from kybernate.model.probing import Grpc, Outcome
from nodeagent.probing.limit import Limit
from nodeagent.probing.web import Connect

_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = 1
_WORDS = {0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_PIECE = 16 * 1024
_ALONE = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


def check(action: Grpc, connect: Connect, limit: Limit) -> Outcome:
    """What came of it."""
    try:
        line = connect("", action.port)
    except OSError as error:
        return Outcome(passed=False, say=f"gRPC probe failed: {error}")
    with tempfile.TemporaryDirectory(prefix="kyb-") as folder, line:
        path = Path(folder) / "s"
        _Lead(path, line).start()
        with grpc.insecure_channel(f"unix:{path}", options=_ALONE) as channel:
            return _asked(channel, action, limit.left())


def _asked(channel: grpc.Channel, action: Grpc, seconds: float) -> Outcome:
    call = channel.unary_unary(_CHECK, request_serializer=None, response_deserializer=None)
    try:
        answer: bytes = call(_request(action.service), timeout=seconds)
    except grpc.RpcError as error:
        return Outcome(passed=False, say=_failed(error))
    status = _status(answer)
    if status == _SERVING:
        return Outcome(passed=True)
    word = _WORDS.get(status, str(status))
    return Outcome(passed=False, say=f'service unhealthy (responded with "{word}")')


def _failed(error: grpc.RpcError) -> str:
    assert isinstance(error, grpc.Call)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
    return f"gRPC probe failed: {error.code().name}: {error.details()}"


def _request(service: str) -> bytes:
    """HealthCheckRequest: field 1, a text."""
    text = service.encode()
    return b"\x0a" + _varint(len(text)) + text if text else b""


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _status(answer: bytes) -> int:
    """HealthCheckResponse: field 1, an enum; 0 where it is absent."""
    return answer[1] if len(answer) >= 2 and answer[0] == 0x08 else 0


class _Lead:
    """A unix socket whose one connection goes on as `line`."""

    def __init__(self, path: Path, line: socket.socket) -> None:
        self._line = line
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)

    def start(self) -> None:
        """Begin; it ends with either side."""
        threading.Thread(target=self._run, name="grpc-probe", daemon=True).start()

    def _run(self) -> None:
        with self._listener, suppress(OSError):
            self._listener.settimeout(self._line.gettimeout())
            near, _ = self._listener.accept()
            near.settimeout(None)
            self._line.settimeout(None)
            back = threading.Thread(target=_copy, args=(self._line, near), daemon=True)
            back.start()
            _copy(near, self._line)
            back.join()
            near.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    for side in (source, target):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
