"""The keys that make checkpoints believed, and the one that opens them, in a Secret of the agents.

`kyb-checkpoint-keys` holds `signing.key`, `next.key` while a rotation is under way, in
`trusted.pem` every public key a checkpoint may be signed with, and `wrapping.key`, which wraps the
keys of sharing domains. Rule: a wrapping key is made where there is none, and never changed here;
what else people put into the Secret stays. Rule: a new key is trusted for `overlap` before it
signs. Rule: nothing is ever taken out of `trusted.pem` here: old checkpoints
stay good until a person takes their key out. Every write is a compare-and-swap.
"""

import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller import secrets
from controller.duties import Duty
from kybernate.api import names
from kybernate.artifacts import chunks
from kybernate.clients.clock import Clock
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.resources import SECRETS
from kybernate.runtime.logs import get_logger

SECRET = "kyb-checkpoint-keys"  # noqa: S105 - its name
SINCE = f"{names.GROUP}/signing-since"
NEXT_SINCE = f"{names.GROUP}/next-since"
_EVERY = 30.0  # seconds: so soon is a Secret that somebody deleted back
_OURS = frozenset({"signing.key", "next.key", "trusted.pem", "wrapping.key"})
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """What the Secret holds; keys are PEM and withheld from the repr.

    `since` and `next_since` are seconds since the epoch; 0 where the Secret does not say.
    """

    signing: bytes
    upcoming: bytes = b""
    trusted: bytes = b""
    since: float = 0.0
    next_since: float = 0.0
    wrapping: bytes = b""
    others: Mapping[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Ring(since={self.since}, next_since={self.next_since}, keys withheld)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Seconds: how long a key signs, and how long the next is trusted before it does."""

    lifetime: float
    overlap: float


def after(ring: Ring | None, terms: Terms, now: float, made: bytes) -> Ring | None:
    """What the Secret should hold next; None: what it holds. `made` is a new key, should one be
    needed."""
    if ring is None or not public(ring.signing):
        trusted = b"" if ring is None else ring.trusted
        kept = ring or Ring(signing=b"")
        return replace(
            kept,
            signing=made,
            upcoming=b"",
            trusted=_with(trusted, made),
            since=now,
            next_since=0.0,
        )
    if _with(ring.trusted, ring.signing) != ring.trusted or not ring.since:
        return replace(ring, trusted=_with(ring.trusted, ring.signing), since=ring.since or now)
    if not public(ring.upcoming):
        if now - ring.since < terms.lifetime:
            return None
        return replace(ring, upcoming=made, trusted=_with(ring.trusted, made), next_since=now)
    if _with(ring.trusted, ring.upcoming) != ring.trusted or not ring.next_since:
        return replace(ring, trusted=_with(ring.trusted, ring.upcoming), next_since=now)
    if now - ring.next_since < terms.overlap:
        return None
    return replace(ring, signing=ring.upcoming, upcoming=b"", since=now, next_since=0.0)


def wrapped(ring: Ring | None, made: bytes) -> Ring | None:
    """With a key that wraps; None: it has one. `made` is a new one, should one be needed."""
    if ring is None or ring.wrapping:
        return None
    return replace(ring, wrapping=made)


class Signing:
    """Keeps the Secret as `after` wants it."""

    def __init__(self, kube: Kube, clock: Clock, namespace: str, terms: Terms) -> None:
        self._kube, self._clock, self._namespace, self._terms = kube, clock, namespace, terms
        self.duty: Duty[str] = Duty("checkpoint-keys", clock, self.look, lambda: [SECRET])
        self._log = get_logger(duty="checkpoint-keys")

    def look(self, _key: str = SECRET) -> float:
        """Take the next step; seconds until the next look. Raises ApiError."""
        secret = self._find()
        before = _read(secret)
        ring = after(before, self._terms, self._clock.now(), make())
        ring = wrapped(ring or before, make_wrapping()) or ring
        if ring is not None:
            self._log.info(
                "checkpoint keys", signs=key_id(ring.signing), rotating=bool(ring.upcoming)
            )
            self._write(secret, ring)
        return min(_EVERY, self._terms.overlap / 2)

    def _find(self) -> Obj | None:
        try:
            return self._kube.get(SECRETS, SECRET, self._namespace)
        except NotFound:
            return None

    def _write(self, secret: Obj | None, ring: Ring) -> None:
        if secret is None:
            fresh = {**secrets.new(self._namespace, SECRET), "type": "Opaque"}
            self._kube.create(SECRETS, _written(fresh, ring))
        else:
            self._kube.replace(SECRETS, _written(secret, ring))


def make() -> bytes:
    """A new private key, PEM."""
    closed = serialization.NoEncryption()
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, closed)


def make_wrapping() -> bytes:
    """A new key that wraps: 32 random bytes, in base64."""
    return b64encode(os.urandom(chunks.SECRET))


def public(private: bytes) -> bytes:
    """The public key of a private one, both PEM; empty where that cannot be read."""
    key = _private(private)
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return b"" if key is None else key.public_key().public_bytes(_PEM, kind)


def key_id(private: bytes) -> str:
    """As signatures name it: 16 hex digits of the SHA-256 of the raw public key."""
    key = _private(private)
    return "" if key is None else sha256(key.public_key().public_bytes_raw()).hexdigest()[:16]


def _private(pem: bytes) -> Ed25519PrivateKey | None:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None


def _with(trusted: bytes, private: bytes) -> bytes:
    pem = public(private)
    return trusted if pem in trusted else trusted + pem


def _read(secret: Obj | None) -> Ring | None:
    if secret is None:
        return None
    data = secrets.decoded(secret)
    ring = Ring(
        signing=data.get("signing.key", b""),
        upcoming=data.get("next.key", b""),
        trusted=data.get("trusted.pem", b""),
        wrapping=data.get("wrapping.key", b""),
        others={name: value for name, value in data.items() if name not in _OURS},
    )
    marks = secret["metadata"].get("annotations") or {}
    return replace(
        ring,
        since=_since(marks, SINCE, ring.signing),
        next_since=_since(marks, NEXT_SINCE, ring.upcoming),
    )


def _since(marks: Mapping[str, str], name: str, key: bytes) -> float:
    """A mark of another key is void."""
    mark = secrets.read_mark(marks.get(name))
    return mark.at if mark and mark.of == key_id(key) else 0.0


def _written(secret: Obj, ring: Ring) -> Obj:
    data = {**ring.others, "signing.key": ring.signing, "trusted.pem": ring.trusted}
    if ring.wrapping:
        data["wrapping.key"] = ring.wrapping
    if ring.upcoming:
        data["next.key"] = ring.upcoming
    whole = {**secret, "data": secrets.encoded(data)}
    whole = secrets.with_mark(whole, SINCE, key_id(ring.signing), ring.since)
    if not ring.upcoming:
        return whole
    return secrets.with_mark(whole, NEXT_SINCE, key_id(ring.upcoming), ring.next_since)
