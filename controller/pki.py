"""Keys and certificates themselves, as PEM. Called by `issuing`; it decides nothing.

Keys are P-256: every client we have speaks it, and a new one costs a millisecond.
"""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.certificates import Certificate, KeyId, Trust, Want

BACKDATE = 300.0  # seconds a certificate is valid before it was made: clocks of nodes differ


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM. Never logged: `key` has no repr."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"KeyPair({len(self.certificate)} bytes, key withheld)"


def make_authority(now: float, lifetime: float) -> KeyPair:
    """A self-signed authority. Its name holds its key id, so two of them are never mistaken."""
    key = ec.generate_private_key(ec.SECP256R1())
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _name(f"Kybernate CA {key_id.digest.hex()[:8]}")
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(name, name, key, now, now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def make_leaf(authority: KeyPair, want: Want, *, now: float, lifetime: float) -> KeyPair:
    """A certificate for a server or a client, never valid beyond its authority's end."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signing_key = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(now + lifetime, issuer.not_valid_after_utc.timestamp())
    use = ExtendedKeyUsageOID.CLIENT_AUTH if want.client else ExtendedKeyUsageOID.SERVER_AUTH
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    builder = (
        _builder(_name(want.secret), issuer.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(issuer_key, critical=False)
    )
    alternatives = [_alternative(name) for name in sorted(want.names)]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return _pair(builder.sign(signing_key, hashes.SHA256()), key)


def read(pem: bytes, key: bytes | None = None) -> Certificate | None:
    """What matters of a certificate; None where it cannot be read or `key` is not its key."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        if key is not None and _public(certificate) != _public_of(key):
            return None
        return _facts(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return None


def split(bundle: bytes) -> dict[KeyId, bytes]:
    """The authorities of a PEM bundle by key id; empty where it cannot be read."""
    try:
        found = x509.load_pem_x509_certificates(bundle)
        return {_facts(c).key: c.public_bytes(serialization.Encoding.PEM) for c in found}
    except (ValueError, x509.ExtensionNotFound):
        return {}


def trust(bundle: bytes) -> Trust:
    """The key ids of a PEM bundle."""
    return frozenset(split(bundle))


def _facts(certificate: x509.Certificate) -> Certificate:
    extensions = certificate.extensions
    own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    try:
        issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        issuer_key = (issuer.key_identifier or b"").hex()
    except x509.ExtensionNotFound:
        issuer_key = own.key_identifier.hex()  # self-signed
    return Certificate(
        key=own.key_identifier.hex(),
        issuer=issuer_key,
        not_before=certificate.not_valid_before_utc.timestamp() + BACKDATE,
        not_after=certificate.not_valid_after_utc.timestamp(),
        names=_names(extensions),
    )


def _names(extensions: x509.Extensions) -> frozenset[str]:
    try:
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = (str(a) for a in alternatives.get_values_for_type(x509.IPAddress))
    return frozenset((*alternatives.get_values_for_type(x509.DNSName), *addresses))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float, until: float
) -> x509.CertificateBuilder:
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now - BACKDATE, UTC))
        .not_valid_after(datetime.fromtimestamp(until, UTC))
        .add_extension(own, critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(*_PUBLIC)


def _public_of(key: bytes) -> bytes:
    return (
        serialization.load_pem_private_key(key, password=None).public_key().public_bytes(*_PUBLIC)
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return KeyPair(certificate.public_bytes(pem), private)


_PUBLIC = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
