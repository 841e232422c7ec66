"""A server's certificate changes with its files, without a restart and for every kind of client."""

import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from kybernate.runtime.tls import TlsFiles
from testbed.pki import Authority, Pair


class Certificates:
    """Authorities, and a folder as a mounted Secret has it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "mounted"
        self.folder.mkdir()

    def authority(self, name: str = "first") -> Authority:
        return Authority(self.root / name)

    def issue(self, name: str, authority: str = "first") -> Pair:
        return self.authority(authority).issue(
            name, common_name=name, addresses=["127.0.0.1", "localhost"]
        )

    def mount(self, name: str, authority: str = "first") -> None:
        """As the kubelet does: complete files, put in place."""
        pair = self.issue(name, authority)
        for source, target in (
            (pair.key, "tls.key"),
            (pair.certificate, "tls.crt"),
            (self.authority(authority).files.certificate, "ca.crt"),
        ):
            draft = self.folder / f".{target}"
            shutil.copy(source, draft)
            draft.replace(self.folder / target)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    made = Certificates(tmp_path)
    made.mount("one")
    return made


class Listener:
    """A TLS server that says hello; `shown` is who the client was."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._context = context
        self.address = self._socket.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(raw, server_side=True) as wrapped:
                    wrapped.sendall(b"hello")
            except OSError:
                raw.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def listen() -> Iterator[Callable[[ssl.SSLContext], Listener]]:
    made: list[Listener] = []

    def start(context: ssl.SSLContext) -> Listener:
        made.append(Listener(context))
        return made[-1]

    yield start
    for one in made:
        one.close()


def server_name(
    listener: Listener, authority: Path, *, sni: str | None = "localhost", pair: Pair | None = None
) -> str:
    """The common name of the certificate it shows."""
    context = ssl.create_default_context(cafile=str(authority))
    context.check_hostname = sni is not None
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    with (
        socket.create_connection(listener.address) as raw,
        context.wrap_socket(raw, server_hostname=sni) as wrapped,
    ):
        assert wrapped.recv(5) == b"hello"
        found: Any = wrapped.getpeercert()
        return str(found["subject"][-1][0][1])


@pytest.mark.parametrize("sni", ["localhost", "127.0.0.1", None])
def test_the_next_handshake_shows_the_new_certificate(
    certificates: Certificates, listen: Callable[..., Listener], sni: str | None
) -> None:
    listener = listen(TlsFiles(certificates.folder).server_context())
    authority = certificates.authority().files.certificate
    assert server_name(listener, authority, sni=sni) == "one"
    certificates.mount("two")
    assert server_name(listener, authority, sni=sni) == "two"


def test_a_half_written_pair_changes_nothing(
    certificates: Certificates, listen: Callable[..., Listener]
) -> None:
    files = TlsFiles(certificates.folder)
    listener = listen(files.server_context())
    authority = certificates.authority().files.certificate
    shutil.copy(certificates.issue("two").certificate, certificates.folder / "tls.crt")
    assert server_name(listener, authority) == "one"
    (certificates.folder / "tls.key").unlink()
    assert server_name(listener, authority) == "one"
    (certificates.folder / "tls.key").write_bytes(b"rubbish")
    assert server_name(listener, authority) == "one"
    assert files.generation == 1
    certificates.mount("two")
    assert server_name(listener, authority) == "two"
    assert files.generation == 2


def test_clients_are_asked_for_a_certificate_of_our_authority_the_newest_one(
    certificates: Certificates, listen: Callable[..., Listener]
) -> None:
    listener = listen(TlsFiles(certificates.folder).server_context(require_client=True))
    first = certificates.authority().files.certificate
    assert server_name(listener, first, pair=certificates.issue("client")) == "one"
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        server_name(listener, first)

    certificates.mount("three", "second")
    second = certificates.authority("second").files.certificate
    known = certificates.issue("client", "second")
    assert server_name(listener, second, pair=known) == "three"
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        server_name(listener, second, pair=certificates.issue("client"))


def test_a_folder_without_a_usable_pair_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        TlsFiles(tmp_path)


def test_a_client_shows_its_certificate_and_trusts_our_authority(
    certificates: Certificates, listen: Callable[..., Listener]
) -> None:
    files = TlsFiles(certificates.folder)
    listener = listen(files.server_context(require_client=True))
    with (
        socket.create_connection(listener.address) as raw,
        files.client_context().wrap_socket(raw, server_hostname="localhost") as wrapped,
    ):
        assert wrapped.recv(5) == b"hello"


class Echo(grpc.GenericRpcHandler):
    """Answers with the caller's common name."""

    def service(self, _: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: context.auth_context()["x509_common_name"][0]
        )


def test_a_grpc_server_and_its_clients_follow_their_files(certificates: Certificates) -> None:
    files = TlsFiles(certificates.folder)
    with futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((Echo(),))
        port = server.add_secure_port("127.0.0.1:0", files.grpc_server_credentials())
        server.start()
        assert _call(port, files) == b"one"
        certificates.mount("three", "second")
        assert _call(port, files) == b"three"
        server.stop(None).wait()


def _call(port: int, files: TlsFiles) -> Any:
    with grpc.secure_channel(f"127.0.0.1:{port}", files.grpc_channel_credentials()) as channel:
        return channel.unary_unary("/kyb.Echo/Echo")(b"", timeout=10)
