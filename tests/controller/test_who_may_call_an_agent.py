"""The certificates we issue, used as agents and their callers use them: mutual TLS over gRPC."""

from concurrent import futures
from pathlib import Path

import grpc
import pytest

from controller import pki
from controller.certificates import Want
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.tls import TlsFiles

AGENT = "kyb-nodeagent.kyb-system.svc"
SERVER = Want(secret="kyb-nodeagent-tls", names=frozenset({AGENT}))
CLIENT = Want(secret="kyb-client-tls", names=frozenset({"kyb-client"}), client=True)


def identity(folder: Path, authority: pki.KeyPair, want: Want) -> TlsFiles:
    pair = pki.make_leaf(authority, want, now=SystemClock().now(), lifetime=3600.0)
    folder.mkdir()
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    return TlsFiles(folder)


@pytest.mark.parametrize(
    ("want", "own_authority", "expected"),
    [
        # the server knows no methods: that it says so means that it let the caller in
        pytest.param(CLIENT, True, grpc.StatusCode.UNIMPLEMENTED, id="the-client-identity"),
        pytest.param(SERVER, True, grpc.StatusCode.UNAVAILABLE, id="a-servers-certificate"),
        pytest.param(CLIENT, False, grpc.StatusCode.UNAVAILABLE, id="another-authoritys"),
    ],
)
def test_an_agent_lets_in_whoever_shows_the_client_identity_and_nobody_else(
    tmp_path: Path, want: Want, own_authority: bool, expected: grpc.StatusCode
) -> None:
    authority = pki.make_authority(SystemClock().now(), 7200.0)
    other = authority if own_authority else pki.make_authority(SystemClock().now(), 7200.0)
    agent = identity(tmp_path / "agent", authority, SERVER)
    caller = identity(tmp_path / "caller", other, want)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", agent.grpc_server_credentials())
    server.start()
    options = [("grpc.ssl_target_name_override", AGENT)]
    credentials = caller.grpc_channel_credentials()
    with (
        grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/agent/Activate")(b"", timeout=10)
    server.stop(None).wait()
    assert caught.value.code() is expected
