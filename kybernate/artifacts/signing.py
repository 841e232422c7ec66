"""
Who vouches for a manifest: Ed25519 signatures of both formats, and the first line of v1's.

Called by: whoever seals, wakes, or lists checkpoints. Rule: bytes are parsed only after `check`.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw

Trusted = Mapping[str, Ed25519PublicKey]
"""Public keys by `key_id`."""

MAX_LINE = 256  # bytes of the first line
V0, V1 = b"kybernate checkpoint v0\n", b"kybernate checkpoint v1\n"  # what is signed before them
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\s*", re.DOTALL)
_LINE = re.compile(rb"kybernate-checkpoint ([0-9]{1,9}) (\S*)", re.ASCII)
_SIGNATURE = re.compile(r"ed25519:([0-9a-f]{16}):([A-Za-z0-9+/]{86}==)", re.ASCII)


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign(content: bytes, key: Ed25519PrivateKey, version: bytes = V1) -> str:
    """`ed25519:KEY:SIGNATURE`; a signature of one version is none of another."""
    return f"ed25519:{key_id(key.public_key())}:{b64encode(key.sign(version + content)).decode()}"


def signed(content: bytes, key: Ed25519PrivateKey) -> bytes:
    """A whole manifest of v1."""
    return f"kybernate-checkpoint 1 {sign(content, key)}\n".encode() + content


def split(blob: bytes, limit: int) -> tuple[bytes, str]:
    """The bytes that were signed, `limit` at most, and the signature. Raises Unusable."""
    end = blob[:MAX_LINE].find(b"\n")
    line = _LINE.fullmatch(blob[: max(0, end)])
    if not line:
        raise Unusable(Flaw.MALFORMED, "the first line is not that of a manifest")
    if int(line[1]) != 1:
        raise Unusable(Flaw.VERSION, f"version {line[1].decode()}")
    if len(blob) - end - 1 > limit:
        raise Unusable(Flaw.TOO_LARGE, f"a manifest of {len(blob)} bytes")
    return blob[end + 1 :], line[2].decode("ascii", "replace")


def check(content: bytes, signature: str, trusted: Trusted, version: bytes = V1) -> None:
    """Raises Unusable where nobody we trust has signed these bytes."""
    found = _SIGNATURE.fullmatch(signature)
    if not found:
        raise Unusable(Flaw.UNSIGNED, "no Ed25519 signature")
    key = trusted.get(found[1])
    if key is None:
        raise Unusable(Flaw.FOREIGN_SIGNATURE, f"key {found[1]}")
    raw = b64decode(found[2], validate=True)
    try:
        if b64encode(raw).decode() != found[2]:  # one signature, one text: it is compared elsewhere
            raise InvalidSignature
        key.verify(raw, version + content)
    except InvalidSignature:
        raise Unusable(Flaw.FORGED, f"key {found[1]}") from None


def trusted_of(pem: bytes) -> Trusted:
    """Public keys one after the other; others than Ed25519 are left out. Raises ValueError."""
    try:
        public = [serialization.load_pem_public_key(one) for one in _PEM.findall(pem)]
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    return {key_id(one): one for one in public if isinstance(one, Ed25519PublicKey)}


def signer_of(pem: bytes) -> Ed25519PrivateKey:
    """A private key in PKCS #8. Raises ValueError."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it holds no Ed25519 key")
    return key
