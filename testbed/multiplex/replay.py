"""
The clients: each on one kept-alive connection, asking in its order, several questions ahead.

Called by: `__main__`, tests. HTTP/1.1 answers a connection's requests in the order they came, so
that a client may send the next before it has the answer: that is what `AHEAD` does here, and what
an address that mixes models up would be caught by.
"""

import http.client
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from testbed.multiplex.tally import Answer, Tally
from testbed.multiplex.workload import Request

AHEAD = 4
PATIENCE_S = 180.0
Wait = Callable[[float], bool]
"""Waits so many seconds; True when it is to end early."""


def replay(url: str, tally: Tally, wait: Wait, ahead: int = AHEAD) -> None:
    """Ask everything at its time; returns when all clients have ended."""
    began = time.monotonic()
    clients = sorted({request.client for request in tally.requests})
    threads = [
        threading.Thread(target=_Client(url, one, tally, wait, ahead, began).run, daemon=True)
        for one in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Client:
    def __init__(
        self, url: str, number: int, tally: Tally, wait: Wait, ahead: int, began: float
    ) -> None:
        place = urlsplit(url)
        self._address = (place.hostname or "", place.port or 80)
        self._mine = [one for one in tally.requests if one.client == number]
        self._number, self._tally, self._wait, self._began = number, tally, wait, began
        self._room = threading.Semaphore(ahead)
        self._open: deque[tuple[Request, float]] = deque()
        self._sent = threading.Semaphore(0)
        self._ended = threading.Event()

    def run(self) -> None:
        """Send in one thread, read in this one."""
        try:
            with socket.create_connection(self._address, PATIENCE_S) as line:
                sender = threading.Thread(target=self._send, args=(line,), daemon=True)
                sender.start()
                self._read(line)
                self._ended.set()
                self._room.release()
                sender.join()
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            self._tally.failed(f"client {self._number}: {error!r}")

    def _send(self, line: socket.socket) -> None:
        for request in self._mine:
            left = self._began + request.at - time.monotonic()
            if left > 0 and self._wait(left):
                break
            self._room.acquire()
            if self._ended.is_set():
                return
            self._open.append((request, time.monotonic()))
            try:
                line.sendall(_bytes(request))
            except OSError:
                return  # the reader says why
            self._sent.release()
        else:
            return
        line.shutdown(socket.SHUT_WR)

    def _read(self, line: socket.socket) -> None:
        stream = line.makefile("rb")
        for position in range(len(self._mine)):
            self._sent.acquire()
            request, sent = self._open.popleft()
            answer = http.client.HTTPResponse(_Shared(stream), method="POST")  # type: ignore[arg-type]
            answer.begin()
            body = answer.read()
            self._room.release()
            self._tally.answered(_answer(request, answer.status, body, sent, position))


class _Shared:
    """What a response needs of a socket, so that the next one goes on in the same stream."""

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def makefile(self, _: str) -> "_Shared":
        return self

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def close(self) -> None:
        """The stream is the client's to close."""


def _bytes(request: Request) -> bytes:
    body = json.dumps(
        {"model": request.model, "prompt": request.tag, "max_tokens": request.tokens}
    ).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: models\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _answer(request: Request, status: int, body: bytes, sent: float, position: int) -> Answer:
    said = json.loads(body) if status == 200 else {}
    choices = said.get("choices") or [{"text": body.decode(errors="replace")}]
    return Answer(
        request=request,
        status=status,
        model=str(said.get("model", "")),
        text=str(choices[0]["text"]),
        seconds=time.monotonic() - sent,
        position=position,
    )
