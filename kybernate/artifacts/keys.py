"""
Key records: a domain's key, wrapped for whoever may open it.

Called by: key rings (`kybernate/ladder`). Rule: what was unwrapped has to be the key the record
names. Rule: rotating a wrapping key changes records, never what is sealed.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kybernate.api.errors import Malformed
from kybernate.api.fields import Reader, read
from kybernate.artifacts import names
from kybernate.artifacts.chunks import SECRET, TAG, DomainKey, derived
from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw

FORMAT, VERSION = "kybernate-domain-key", 1
MAX_RECORD = 64 * 1024  # bytes
MAX_WRAPS = 16
NONCE = 12  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrap:
    """The secret under one wrapping key."""

    by: str
    nonce: bytes
    secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """Whose key, its id, and a wrap for each wrapping key that may open it."""

    domain: str
    key: str
    wrapped: tuple[Wrap, ...]


def wrapping_id(wrapping: bytes) -> str:
    """Of a wrapping key, 16 hex digits."""
    return derived("kybernate checkpoint v1 wrapping key id", wrapping)[:8].hex()


def new_record(domain: str, key: DomainKey, wrapping: bytes, nonce: bytes) -> KeyRecord:
    """For a key that was just made. `nonce` is random, NONCE bytes, used once."""
    empty = KeyRecord(domain=domain, key=key.id, wrapped=())
    return wrapped(empty, key, wrapping, nonce)


def wrapped(record: KeyRecord, key: DomainKey, wrapping: bytes, nonce: bytes) -> KeyRecord:
    """The record with a wrap for this key, in place of an older one of the same."""
    secret = AESGCM(wrapping).encrypt(nonce, key.secret, _associated(record))
    wrap = Wrap(by=wrapping_id(wrapping), nonce=nonce, secret=secret)
    others = tuple(one for one in record.wrapped if one.by != wrap.by)
    return replace(record, wrapped=(*others, wrap))


def without(record: KeyRecord, wrapping: str) -> KeyRecord:
    """The record without a wrapping key's wrap. Raises ValueError where it is the last one."""
    left = tuple(one for one in record.wrapped if one.by != wrapping)
    if not left:
        raise ValueError(f"{wrapping} is the last wrapping key that opens {record.key}")
    return replace(record, wrapped=left)


def unwrap(record: KeyRecord, wrapping: Mapping[str, bytes]) -> DomainKey:
    """By whichever of our wrapping keys, by id, opens it. Raises Unusable."""
    for one in record.wrapped:
        if one.by not in wrapping:
            continue
        try:
            secret = AESGCM(wrapping[one.by]).decrypt(one.nonce, one.secret, _associated(record))
        except InvalidTag:
            raise Unusable(Flaw.KEY_ABSENT, f"record of {record.key} was altered") from None
        key = DomainKey(secret)
        if key.id != record.key:
            raise Unusable(Flaw.KEY_ABSENT, f"the record of {record.key} holds {key.id}")
        return key
    asked = ", ".join(one.by for one in record.wrapped)
    raise Unusable(Flaw.KEY_ABSENT, f"{record.key} is wrapped by {asked}: none of them is here")


def encode(record: KeyRecord) -> bytes:
    """As an object of a store."""
    whole = {
        "format": FORMAT,
        "version": VERSION,
        "domain": record.domain,
        "key": record.key,
        "wrapped": [
            {
                "by": one.by,
                "nonce": b64encode(one.nonce).decode(),
                "secret": b64encode(one.secret).decode(),
            }
            for one in record.wrapped
        ],
    }
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def decode(content: bytes, domain: str, key: str) -> KeyRecord:
    """Of the record that stands under this domain and id. Raises Unusable."""
    try:
        if len(content) > MAX_RECORD:
            raise Unusable(Flaw.TOO_LARGE, f"key record of {len(content)} bytes")
        whole = orjson.loads(content)
        if whole["format"] != FORMAT or whole["version"] != VERSION:
            raise Unusable(Flaw.VERSION, f"key record {names.shown(str(whole['version']))}")
        record = read(whole, "", _record)
    except (ValueError, KeyError, TypeError, Malformed) as error:
        raise Unusable(Flaw.MALFORMED, f"key record: {names.shown(str(error))}") from error
    if (record.domain, record.key) != (domain, key):
        raise Unusable(Flaw.MISPLACED, f"key record of {names.shown(record.domain)}")
    if not 1 <= len(record.wrapped) <= MAX_WRAPS or not all(map(_sound, record.wrapped)):
        raise Unusable(Flaw.MALFORMED, "key record: its wraps")
    return record


def _record(reader: Reader) -> KeyRecord:
    return KeyRecord(
        domain=reader.text("domain"),
        key=reader.text("key"),
        wrapped=tuple(
            Wrap(
                by=one.text("by"),
                nonce=one.parsed("nonce", _base64, b""),
                secret=one.parsed("secret", _base64, b""),
            )
            for one in reader.each("wrapped")
        ),
    )


def _sound(wrap: Wrap) -> bool:
    return len(wrap.nonce) == NONCE and len(wrap.secret) == SECRET + TAG


def _base64(text: str) -> bytes:
    try:
        raw = b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if b64encode(raw).decode() != text:
        raise ValueError("base64")
    return raw


def _associated(record: KeyRecord) -> bytes:
    return f"kybernate domain key v1\n{record.domain}\n{record.key}".encode()
