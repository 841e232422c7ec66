"""
Who may make checkpoints: one key that signs, several that are trusted. Ed25519.

Called by: drafts (sign), the store and peers (check). The folder (a Secret that only agents mount)
holds `signing.key`, a private key, and `trusted.pem`, public keys one after the other; both PEM.
Read again when they change; what does not load changes nothing. Rule: a signature names its key,
so a rotation is: trust the new one everywhere, then sign with it.
"""

import os
import re
import threading
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw
from kybernate.runtime.logs import get_logger
from nodeagent.disk.durable import seal

SIGNING, TRUSTED = "signing.key", "trusted.pem"
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\s*", re.DOTALL)
_TEXT = re.compile(r"ed25519:([0-9a-f]{16}):([A-Za-z0-9+/]{86}==)", re.ASCII)
_CONTEXT = b"kybernate checkpoint v0\n"  # a signature of anything else is never one of these


@dataclass(frozen=True, slots=True)
class _Loaded:
    key: Ed25519PrivateKey
    trusted: dict[str, Ed25519PublicKey]


class Keys:
    """One folder of keys. Thread safe."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError, ValueError where there is no usable pair to begin with."""
        self._folder = folder
        self._lock = threading.Lock()
        self._stamp = self._stat()
        self._loaded = self._load()

    @classmethod
    def own(cls, folder: Path) -> "Keys":
        """A key for this node alone, made where there is none: its checkpoints wake only here."""
        if not (folder / SIGNING).exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            key = Ed25519PrivateKey.generate()
            seal(folder / TRUSTED, _public_pem(key.public_key()))
            with os.fdopen(os.open(folder / ".key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(_private_pem(key))
                file.flush()
                os.fsync(file.fileno())
            (folder / ".key").replace(folder / SIGNING)
        return cls(folder)

    def sign(self, content: bytes) -> str:
        """`ed25519:KEY:SIGNATURE`."""
        key = self._newest().key
        signature = b64encode(key.sign(_CONTEXT + content)).decode()
        return f"ed25519:{key_id(key.public_key())}:{signature}"

    def check(self, content: bytes, signature: str) -> None:
        """Raises Unusable where nobody we trust has signed these bytes."""
        found = _TEXT.fullmatch(signature)
        if not found:
            raise Unusable(Flaw.UNSIGNED, "no Ed25519 signature")
        key = self._newest().trusted.get(found[1])
        if key is None:
            raise Unusable(Flaw.FOREIGN_SIGNATURE, f"key {found[1]}")
        try:
            key.verify(b64decode(found[2], validate=True), _CONTEXT + content)
        except (InvalidSignature, NotBase64):
            raise Unusable(Flaw.FORGED, f"key {found[1]}") from None

    def _newest(self) -> _Loaded:
        with self._lock:
            try:
                stamp = self._stat()
                if stamp != self._stamp:
                    self._stamp = stamp
                    self._loaded = self._load()
            except (OSError, ValueError) as problem:
                get_logger().warning("checkpoint keys not usable, the old stay", why=str(problem))
            return self._loaded

    def _stat(self) -> list[tuple[int, int, int]]:
        stats = [(self._folder / name).stat() for name in (SIGNING, TRUSTED)]
        return [(one.st_mtime_ns, one.st_ino, one.st_size) for one in stats]

    def _load(self) -> _Loaded:
        try:
            key = serialization.load_pem_private_key((self._folder / SIGNING).read_bytes(), None)
            found = _PEM.findall((self._folder / TRUSTED).read_bytes())
            public = [serialization.load_pem_public_key(pem) for pem in found]
        except (TypeError, UnsupportedAlgorithm) as error:
            raise ValueError(f"{self._folder}: {error}") from error
        trusted = {key_id(one): one for one in public if isinstance(one, Ed25519PublicKey)}
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{self._folder / SIGNING} holds no Ed25519 key")
        if key_id(key.public_key()) not in trusted:
            raise ValueError(f"{self._folder / TRUSTED} lacks the key that signs")
        return _Loaded(key, trusted)


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


def _public_pem(key: Ed25519PublicKey) -> bytes:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, kind)


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    kind, closed = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, kind, closed)
