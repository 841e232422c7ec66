"""
Who may make checkpoints, and who may open them: one key that signs, several that are trusted
(Ed25519), one that wraps the domains' keys and older ones that still open.

Called by: drafts (sign), the store and peers (check, open). The folder (a Secret that only agents
mount) holds `signing.key`, a private key, and `trusted.pem`, public keys one after the other; both
PEM; and `wrapping.key`. Read again when they change; what does not load changes nothing. Rule: a
signature names its key, so a rotation is: trust the new one everywhere, then sign with it.
Rule: there always is a key that wraps. It is that of the folder for wrapping keys where one is
given, else that of the Secret, else one of this node's own; the others of these open.
"""

import os
import secrets
import threading
import uuid
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kybernate.artifacts import signing
from kybernate.artifacts.chunks import SECRET
from kybernate.artifacts.signing import Trusted
from kybernate.ladder.keyring import CURRENT, KeyRing
from kybernate.runtime.logs import get_logger
from nodeagent.disk.durable import seal, sync_folder

SIGNING, TRUSTED = "signing.key", "trusted.pem"


@dataclass(frozen=True, slots=True)
class _Loaded:
    key: Ed25519PrivateKey
    trusted: Trusted


class Keys:
    """One folder of keys. Thread safe."""

    def __init__(self, folder: Path, wrapping: Path | None = None, own: Path | None = None) -> None:
        """`wrapping` holds other keys that wrap, `own` is where this node keeps one should there be
        none. Raises OSError, ValueError where there is no usable pair to begin with."""
        self._folder = folder
        self._wrapping = [one for one in (wrapping, folder) if one is not None]
        self._own = own or folder
        self._lock = threading.Lock()
        self._stamp = self._stat()
        self._loaded = self._load()

    @classmethod
    def own(cls, folder: Path, wrapping: Path | None = None) -> "Keys":
        """Keys for this node alone, made where there are none: its checkpoints wake only here."""
        if not (folder / SIGNING).exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            key = Ed25519PrivateKey.generate()
            seal(folder / TRUSTED, _public_pem(key.public_key()))
            with os.fdopen(os.open(folder / ".key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(_private_pem(key))
                file.flush()
                os.fsync(file.fileno())
            (folder / ".key").replace(folder / SIGNING)
        if wrapping is None and not (folder / CURRENT).exists():
            _make_wrapping(folder)
        return cls(folder, wrapping)

    def ring(self) -> KeyRing:
        """What opens and wraps, as the folders have it now. Raises BadKeys, OSError."""
        found = [one for one in (*self._wrapping, self._own) if (one / CURRENT).exists()]
        if not found:
            get_logger().warning("no wrapping key is given: this node makes one of its own, and "
                                 "its checkpoints open only here")  # fmt: skip
            _make_wrapping(self._own)
            found = [self._own]
        return KeyRing.of_folder(*found)

    @property
    def trusted(self) -> Trusted:
        """Whom we believe, now."""
        return self._newest().trusted

    @property
    def signer(self) -> Ed25519PrivateKey:
        """Who signs, now."""
        return self._newest().key

    def sign(self, content: bytes) -> str:
        """`ed25519:KEY:SIGNATURE`."""
        return signing.sign(content, self._newest().key, signing.V0)

    def check(self, content: bytes, signature: str) -> None:
        """Raises Unusable where nobody we trust has signed these bytes."""
        signing.check(content, signature, self._newest().trusted, signing.V0)

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
            key = signing.signer_of((self._folder / SIGNING).read_bytes())
        except ValueError as error:
            raise ValueError(f"{self._folder / SIGNING}: {error}") from error
        trusted = signing.trusted_of((self._folder / TRUSTED).read_bytes())
        if signing.key_id(key.public_key()) not in trusted:
            raise ValueError(f"{self._folder / TRUSTED} lacks the key that signs")
        return _Loaded(key, trusted)


def _make_wrapping(folder: Path) -> None:
    """Whole or not there, for us alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = folder / f".{uuid.uuid4().hex}"
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(b64encode(secrets.token_bytes(SECRET)))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(beside, folder / CURRENT)
    beside.unlink()
    sync_folder(folder)


def _public_pem(key: Ed25519PublicKey) -> bytes:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, kind)


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    kind, closed = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, kind, closed)
