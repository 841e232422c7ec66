"""
Domain keys in a store, and the wrapping keys that open them.

Called by: whoever seals, wakes or copies. A folder of wrapping keys (a Secret, say) holds
`wrapping.key`, which wraps, and `*.key`, which open; each 32 bytes in base64. Keys that sign may
lie there too. A domain's first key follows from the wrapping key, so that stores of one cluster
have the same one without a word between them, and what is sealed in one is copied into another as
it is. Rule: a key record is durable before anything is sealed by its key. Rule: a secret is never
logged and never in a text.
"""

import os
from base64 import b64decode
from collections.abc import Callable, Iterable
from pathlib import Path

from kybernate.artifacts import keys, names
from kybernate.artifacts.chunks import SECRET, DomainKey, derived
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.keys import NONCE, KeyRecord
from kybernate.clients.errors import Refused
from kybernate.model.checkpoint import Flaw
from kybernate.stores.errors import Absent
from kybernate.stores.port import Store

CURRENT = "wrapping.key"
_SIGNING = frozenset({"signing.key", "next.key"})  # of the Secret that has both
_FIRST = "kybernate checkpoint v1 first key of a domain"


class BadKeys(Refused):
    """The folder does not hold usable wrapping keys."""


class KeyRing:
    """One wrapping key that wraps, and older ones that still open. Thread safe."""

    def __init__(
        self,
        current: bytes,
        older: Iterable[bytes] = (),
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._current, self._random = current, random
        self._wrapping = {keys.wrapping_id(one): one for one in (*older, current)}

    @classmethod
    def of_folder(cls, folder: Path, *others: Path) -> "KeyRing":
        """What `others` have opens, too. Raises BadKeys."""
        found = [path for one in (folder, *others) for path in sorted(one.glob("*.key"))]
        older = [_read(path) for path in found if path.name not in _SIGNING]
        return cls(_read(folder / CURRENT), older)

    def open(self, store: Store, domain: str, key: str) -> DomainKey:
        """Raises Unusable (KEY_ABSENT where there is no record), and what the store raises."""
        return keys.unwrap(self._record(store, domain, key), self._wrapping)

    def newest(self, store: Store, domain: str) -> DomainKey:
        """For sealing: the key of this domain that was made last of those that can be opened, or
        its first. Raises Unusable for a record that was altered."""
        found = sorted(store.list(f"{names.DOMAINS}/{domain}/keys"), key=lambda one: one.put_at)
        for one in reversed(found):
            try:
                return self.open(store, domain, Path(one.key).stem)
            except Unusable as problem:  # its wrapping key was lost: what it sealed is, too
                if problem.reason is not Flaw.KEY_ABSENT:
                    raise
        return self._put(store, domain, DomainKey(derived(_FIRST, self._current + domain.encode())))

    def made(self, store: Store, domain: str) -> DomainKey:
        """A new key for what is sealed from now on, which follows from nothing."""
        return self._put(store, domain, DomainKey(self._random(SECRET)))

    def opened(self, record: bytes, domain: str, key: str) -> DomainKey:
        """Of a record's object, from wherever. Raises Unusable."""
        return keys.unwrap(keys.decode(record, domain, key), self._wrapping)

    def _put(self, store: Store, domain: str, key: DomainKey) -> DomainKey:
        record = keys.new_record(domain, key, self._current, self._random(NONCE))
        store.put(names.record_key(domain, key.id), keys.encode(record))
        return key

    def lend(self, store: Store, domain: str, key: DomainKey) -> None:
        """Have a key that was opened elsewhere in this store, wrapped by ours alone."""
        record = keys.new_record(domain, key, self._current, self._random(NONCE))
        try:
            there = self._record(store, domain, key.id)
        except Unusable as problem:
            if problem.reason is not Flaw.KEY_ABSENT:
                raise
        else:
            if keys.wrapping_id(self._current) in {one.by for one in there.wrapped}:
                return
            record = keys.wrapped(there, key, self._current, self._random(NONCE))
        store.put(names.record_key(domain, key.id), keys.encode(record))

    def rewrap(self, store: Store) -> int:
        """Have every record of a store wrapped by the current key alone; how many were changed.

        Interrupted and done again it goes on. Raises Unusable where one cannot be opened, once all
        others are done.
        """
        changed, failed = 0, None
        for listed in list(store.list(names.DOMAINS)):
            parts = listed.key.split("/")
            if len(parts) != 4 or parts[2] != "keys":
                continue
            try:
                changed += self._rewrapped(store, parts[1], Path(parts[3]).stem)
            except Unusable as problem:
                failed = failed or problem
        if failed is not None:
            raise failed
        return changed

    def _rewrapped(self, store: Store, domain: str, key_id: str) -> bool:
        """Whether that was to be done. Raises Unusable."""
        record = self._record(store, domain, key_id)
        if [one.by for one in record.wrapped] == [keys.wrapping_id(self._current)]:
            return False
        key = keys.unwrap(record, self._wrapping)
        fresh = keys.new_record(domain, key, self._current, self._random(NONCE))
        store.put(names.record_key(domain, key_id), keys.encode(fresh))
        return True

    def _record(self, store: Store, domain: str, key: str) -> KeyRecord:
        try:
            content = store.get(names.record_key(domain, key), 0, keys.MAX_RECORD + 1)
        except Absent:
            raise Unusable(Flaw.KEY_ABSENT, f"no record of {key} in {domain}") from None
        return keys.decode(bytes(content), domain, key)


def _read(path: Path) -> bytes:
    try:
        raw = b64decode(path.read_text().strip(), validate=True)
    except (OSError, ValueError) as error:
        raise BadKeys(f"{path}: {getattr(error, 'strerror', None) or 'not base64'}") from None
    if len(raw) != SECRET:
        raise BadKeys(f"{path}: {len(raw)} bytes (expected {SECRET}, in base64)")
    return raw
