"""A client of gunicorn's that begins to speak and stops is let go."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kybernate.runtime import wsgi
from kybernate.runtime.tls import TlsFiles
from kybernate.runtime.wsgi import Serving
from testbed.pki import Authority


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What gunicorn gets from its hook `ssl_context`."""
    monkeypatch.setattr(wsgi, "_SILENCE_S", 0.05)
    authority = Authority(tmp_path)
    pair = authority.issue("server", common_name="server", addresses=["127.0.0.1"])
    pair.certificate.rename(tmp_path / "tls.crt")
    pair.key.rename(tmp_path / "tls.key")
    (tmp_path / "ca.crt").write_bytes(authority.files.certificate.read_bytes())
    serving = Serving(name="x", listen=":0", threads=1, tls=TlsFiles(tmp_path))
    return wsgi._options(serving)["ssl_context"](None, None)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_in_the_middle_of_a_handshake(
    context: Any, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    theirs.sendall(b"\x16")  # the first byte of a handshake
    ours.setblocking(True)
    wrapped = context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
    with wrapped, pytest.raises(TimeoutError):
        wrapped.do_handshake()


def test_in_the_middle_of_a_request_however_often_gunicorn_asks_for_blocking_reads(
    context: Any, ends: tuple[socket.socket, socket.socket]
) -> None:
    wrapped = context.wrap_socket(ends[0], server_side=True, do_handshake_on_connect=False)
    with wrapped:
        wrapped.setblocking(False)
        assert wrapped.gettimeout() == 0.0
        wrapped.setblocking(True)
        assert wrapped.gettimeout() == 0.05
        assert isinstance(wrapped, ssl.SSLSocket)
