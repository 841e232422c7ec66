"""
Serving and client certificates that are read again when their files change, without a restart.

Called by: every server and every client of the agents. The folder holds `tls.crt`, `tls.key` and
`ca.crt` (a mounted Secret). Rule: a pair that does not load (half written, mismatched) changes
nothing: the last good one is used, and it is logged.
"""

import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from kybernate.clients.kubeconfig import load_pair
from kybernate.runtime.logs import get_logger

_NAMES = ("tls.crt", "tls.key", "ca.crt")


@dataclass(frozen=True)
class _Loaded:
    """One state of the files, proven usable. `contexts` is by `require_client`."""

    certificate: bytes
    key: bytes
    authority: bytes
    contexts: Mapping[bool, ssl.SSLContext]


class TlsFiles:
    """One folder. Safe for several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        """Raises OSError or ssl.SSLError when there is no usable pair to begin with."""
        self._paths = [Path(folder) / name for name in _NAMES]
        self._lock = threading.Lock()
        self._log = get_logger(tls=str(folder))
        self._stamp = self._stat()
        self._loaded = self._load()
        self._generation = 1

    @property
    def generation(self) -> int:
        """Goes up with every pair that was taken over."""
        self._newest()
        return self._generation

    def server_context(self, *, require_client: bool = False) -> ssl.SSLContext:
        """For a server's whole life: each handshake uses the newest files.

        As gunicorn's hook: `ssl_context = lambda config, default: files.server_context()`.
        With `require_client`, clients must show a certificate of `ca.crt`.
        """
        first = self._newest()
        context = _server_context(first.certificate, first.key, first.authority, require_client)

        def swap(handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            handshake.context = self._newest().contexts[require_client]

        # OpenSSL asks at every handshake, also of clients that name no server.
        context.sni_callback = swap
        return context

    def client_context(self) -> ssl.SSLContext:
        """For one connection or pool: shows our certificate, trusts `ca.crt`."""
        newest = self._newest()
        context = ssl.create_default_context(cadata=newest.authority.decode())
        load_pair(context, newest.certificate, newest.key)
        return context

    def grpc_server_credentials(self, *, require_client: bool = True) -> grpc.ServerCredentials:
        """For a gRPC server's whole life; asked anew at each handshake."""
        served = self._newest()

        def fetch() -> Any:  # a configuration, or None: nothing new (the stubs know no None)
            nonlocal served
            newest = self._newest()
            if newest is served:
                return None
            served = newest
            return _grpc_configuration(newest)

        return grpc.dynamic_ssl_server_credentials(
            _grpc_configuration(served), fetch, require_client_authentication=require_client
        )

    def grpc_channel_credentials(self) -> grpc.ChannelCredentials:
        """For one channel. gRPC cannot change a channel's: make a new one per `generation`."""
        newest = self._newest()
        return grpc.ssl_channel_credentials(
            root_certificates=newest.authority,
            private_key=newest.key,
            certificate_chain=newest.certificate,
        )

    def _newest(self) -> _Loaded:
        with self._lock:
            try:
                stamp = self._stat()
                if stamp == self._stamp:
                    return self._loaded
                self._stamp = stamp  # one that does not load is not tried again until it changes
                self._loaded = self._load()
                self._generation += 1
                self._log.info("certificate taken over", generation=self._generation)
            except (OSError, ValueError) as problem:  # an ssl.SSLError is an OSError
                self._log.warning("certificate not usable, the old one stays", detail=str(problem))
            return self._loaded

    def _stat(self) -> list[tuple[int, int, int]]:
        stats = [path.stat() for path in self._paths]
        return [(found.st_mtime_ns, found.st_ino, found.st_size) for found in stats]

    def _load(self) -> _Loaded:
        certificate, key, authority = (path.read_bytes() for path in self._paths)
        contexts = {
            require: _server_context(certificate, key, authority, require)
            for require in (False, True)
        }
        return _Loaded(certificate, key, authority, contexts)


def _server_context(
    certificate: bytes, key: bytes, authority: bytes, require_client: bool
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.decode())
    load_pair(context, certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_NONE
    return context


def _grpc_configuration(loaded: _Loaded) -> grpc.ServerCertificateConfiguration:
    pairs = [(loaded.key, loaded.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, loaded.authority)
