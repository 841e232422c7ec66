"""The bundle's HTTPS server: it waits for its certificate, follows it, and keeps connections."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from controller import pki
from controller.bundle_app import bundle_app
from controller.bundles import Bundle
from controller.certificates import Want
from controller.serving import BundleServer
from kybernate.model.ids import Revision
from kybernate.runtime.clock import SystemClock

Wait = Callable[..., Any]
PATH = "/bundles/kyb.tar.gz"
WANT = Want(secret="kyb-controller-tls", names=frozenset({"127.0.0.1"}))


class Published:
    """What a Publication offers to its server."""

    current: Bundle | None = Bundle(revision=Revision("sha256:1"), content=b"tar")


def write_identity(folder: Path, authority: pki.KeyPair) -> None:
    now = SystemClock().now()
    pair = pki.make_leaf(authority, WANT, now=now, lifetime=3600.0)
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)


def client(authority: pki.KeyPair, port: int) -> urllib3.HTTPSConnectionPool:
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    return urllib3.HTTPSConnectionPool("127.0.0.1", port, ssl_context=context, retries=False)


@pytest.fixture
def authority() -> pki.KeyPair:
    return pki.make_authority(SystemClock().now(), 3600.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BundleServer]:
    app = bundle_app(Published())  # type: ignore[arg-type]
    running = BundleServer("127.0.0.1:0", app, tmp_path, SystemClock())
    running.start()
    yield running
    running.stop()


def test_it_serves_as_soon_as_there_is_a_certificate(
    server: BundleServer, authority: pki.KeyPair, tmp_path: Path, eventually: Wait
) -> None:
    assert not server.serving
    write_identity(tmp_path, authority)
    eventually(lambda: server.serving)
    with client(authority, server.address[1]) as pool:
        answer = pool.request("GET", PATH)
        assert (answer.status, answer.data) == (200, b"tar")
        tag = answer.headers["ETag"]
        again = pool.request("GET", PATH, headers={"If-None-Match": tag})
        assert (again.status, again.data) == (304, b"")
        assert pool.request("HEAD", PATH).headers["Content-Length"] == "3"
        assert pool.request("GET", "/etc/passwd").status == 404
        assert pool.request("POST", PATH).status == 501
        assert pool.num_connections <= 2, "a connection is kept between two polls"


def test_a_new_certificate_is_shown_to_the_next_client(
    server: BundleServer, authority: pki.KeyPair, tmp_path: Path, eventually: Wait
) -> None:
    write_identity(tmp_path, authority)
    eventually(lambda: server.serving)
    successor = pki.make_authority(SystemClock().now(), 3600.0)
    write_identity(tmp_path, successor)
    with client(successor, server.address[1]) as pool:
        assert pool.request("GET", PATH).status == 200


def test_it_ends_while_it_still_waits_for_a_certificate(tmp_path: Path) -> None:
    app = bundle_app(Published())  # type: ignore[arg-type]
    waiting = BundleServer("127.0.0.1:0", app, tmp_path / "absent", SystemClock())
    waiting.start()
    waiting.stop()


def test_without_a_tls_folder_it_speaks_plain_http(eventually: Wait) -> None:
    app = bundle_app(Published())  # type: ignore[arg-type]
    plain = BundleServer("127.0.0.1:0", app, None, SystemClock())
    plain.start()
    eventually(lambda: plain.serving)
    url = f"http://127.0.0.1:{plain.address[1]}{PATH}"
    assert urllib3.request("GET", url).data == b"tar"
    plain.stop()
