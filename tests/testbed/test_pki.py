"""Certificates are good enough for strict clients, and keys are nobody else's to read."""

import ipaddress
import ssl
import stat
from pathlib import Path

import orjson
import pytest
from cryptography import x509

from testbed import kubeconfig, pki


@pytest.fixture
def authority(tmp_path: Path) -> pki.Authority:
    return pki.Authority(tmp_path / "pki")


def test_a_strict_client_and_a_server_prove_themselves_to_each_other(
    authority: pki.Authority,
) -> None:
    server = authority.issue("server", common_name="server", addresses=["127.0.0.1", "kubernetes"])
    client = authority.issue("client", common_name="system:admin", organization="system:masters")
    for name in ("127.0.0.1", "kubernetes"):
        shown = _handshake(authority, server, client, name)
        assert ((("organizationName", "system:masters"),)) in shown["subject"]


def test_a_server_at_another_address_is_refused(authority: pki.Authority) -> None:
    server = authority.issue("server", common_name="server", addresses=["127.0.0.1"])
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        _handshake(authority, server, server, "10.0.0.1")


def test_everything_that_holds_a_key_is_private(authority: pki.Authority, tmp_path: Path) -> None:
    pair = authority.issue("n1", common_name="system:node:n1", organization="system:nodes")
    accounts = pki.service_account_keys(tmp_path / "pki")
    config = kubeconfig.write(
        tmp_path / "n1.kubeconfig",
        "https://127.0.0.1:1",
        authority.files.certificate,
        kubeconfig.certificate_user(pair),
    )
    for file in (authority.files.key, pair.key, accounts.key, config):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_folder_keeps_its_authority_and_certificates(authority: pki.Authority) -> None:
    first = authority.issue("n1", common_name="system:node:n1")
    before = first.certificate.read_bytes(), authority.files.certificate.read_bytes()
    again = pki.Authority(authority.folder)
    again.issue("n1", common_name="system:node:n1")
    assert before == (first.certificate.read_bytes(), again.files.certificate.read_bytes())


def test_addresses_are_addresses_and_names_are_names(authority: pki.Authority) -> None:
    pair = authority.issue("server", common_name="s", addresses=["10.0.0.1", "kubernetes"])
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.1")]
    assert names.get_values_for_type(x509.DNSName) == ["kubernetes"]


def test_a_token_stays_in_its_file(authority: pki.Authority, tmp_path: Path) -> None:
    user = kubeconfig.token_user(tmp_path / "token")
    file = kubeconfig.write(tmp_path / "k", "https://s", authority.files.certificate, user)
    assert orjson.loads(file.read_bytes())["users"][0]["user"] == {
        "tokenFile": str(tmp_path / "token")
    }


def _handshake(
    authority: pki.Authority, server: pki.Pair, client: pki.Pair, name: str
) -> dict[str, object]:
    """Both sides in memory; the client's certificate as the server saw it."""
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = _context(ssl.PROTOCOL_TLS_CLIENT, authority, client)
    answering = _context(ssl.PROTOCOL_TLS_SERVER, authority, server)
    asked = answering.wrap_bio(theirs, ours, server_side=True)
    sides = [asking.wrap_bio(ours, theirs, server_hostname=name), asked]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)
    shown = asked.getpeercert()
    assert shown is not None
    return shown


def _context(kind: int, authority: pki.Authority, own: pki.Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(kind)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(authority.files.certificate)
    context.load_cert_chain(own.certificate, own.key)
    return context
