"""
Certificates and keys of one testbed: an authority of its own, serving and client certificates,
and the key pair of service account tokens.

Called by: `testbed.controlplane`; parts of the testbed that serve TLS take certificates from it.
Rule: one authority signs all; a testbed has no parties that distrust each other.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testbed import files

LIFETIME = datetime.timedelta(days=365)
_SKEW = datetime.timedelta(minutes=5)
_NO_USAGE = dict.fromkeys(
    [
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ],
    False,
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of a certificate (or public key) and its private key, both PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority kept in a folder; opens the one that is there, or makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = Pair(folder / "ca.crt", folder / "ca.key")
        folder.mkdir(parents=True, exist_ok=True)
        if not self.files.certificate.exists():
            self._make()
        self._certificate = x509.load_pem_x509_certificate(self.files.certificate.read_bytes())
        self._key = _load_key(self.files.key)

    def issue(
        self,
        name: str,
        *,
        common_name: str,
        organization: str | None = None,
        addresses: Sequence[str] = (),
    ) -> Pair:
        """The certificate `<name>.crt` for clients, and for servers at these names and IPs.

        One of that name that is there already stays: servers may be using it.
        """
        there = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if there.certificate.exists():
            return there
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(common_name, organization), self._certificate.subject, key)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        ).add_extension(_usage("digital_signature"), critical=True)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
            critical=False,
        )
        if addresses:
            builder = builder.add_extension(_alternatives(addresses), critical=False)
        return self._save(name, builder.sign(self._key, hashes.SHA256()), key)

    def mounted(self, name: str) -> Path:
        """The folder `<name>-tls` with a certificate of this name, as a Secret is mounted."""
        pair = self.issue(name, common_name=name, addresses=["127.0.0.1", name])
        folder = self.folder / f"{name}-tls"
        folder.mkdir(exist_ok=True)
        parts = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": self.files.certificate}
        for part, file in parts.items():
            files.write_private(folder / part, file.read_bytes())
        return folder

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("kybernate testbed", None)
        builder = _builder(subject, subject, key)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        ).add_extension(_usage("key_cert_sign", "crl_sign", "digital_signature"), critical=True)
        self._save("ca", builder.sign(key, hashes.SHA256()), key)

    def _save(
        self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> Pair:
        """The key first: a certificate that is there says that its key is, too."""
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        files.write_private(pair.key, _private_pem(key))
        files.write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return pair


def service_account_keys(folder: Path) -> Pair:
    """The key pair that signs and proves service account tokens; made when it is not there."""
    pair = Pair(folder / "sa.pub", folder / "sa.key")
    if not pair.certificate.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        files.write_private(pair.key, _private_pem(key))
        files.write_private(
            pair.certificate,
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        )
    return pair


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str, organization: str | None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


def _usage(*wanted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{**_NO_USAGE, **dict.fromkeys(wanted, True)})


def _alternatives(addresses: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_alternative(address) for address in addresses])


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
