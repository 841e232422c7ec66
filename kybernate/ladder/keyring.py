"""
Domain keys in a store, and the wrapping keys that open them.

Called by: whoever seals, wakes or copies. A folder of wrapping keys (a Secret, say) holds
`wrapping.key`, which wraps, and `*.key`, which open; each 32 bytes in base64. Rule: a key record is
durable before anything is sealed by its key. Rule: a secret is never logged and never in a text.
"""

import os
from base64 import b64decode
from collections.abc import Callable, Iterable
from pathlib import Path

from kybernate.artifacts import keys, names
from kybernate.artifacts.chunks import SECRET, DomainKey
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.keys import NONCE, KeyRecord
from kybernate.clients.errors import Refused
from kybernate.model.checkpoint import Flaw
from kybernate.stores.errors import Absent
from kybernate.stores.port import Store

CURRENT = "wrapping.key"


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
    def of_folder(cls, folder: Path) -> "KeyRing":
        """Raises BadKeys."""
        current = _read(folder / CURRENT)
        return cls(current, [_read(path) for path in sorted(folder.glob("*.key"))])

    def open(self, store: Store, domain: str, key: str) -> DomainKey:
        """Raises Unusable (KEY_ABSENT where there is no record), and what the store raises."""
        return keys.unwrap(self._record(store, domain, key), self._wrapping)

    def newest(self, store: Store, domain: str) -> DomainKey:
        """For sealing: the key of this domain that was made last, or one that is made now.

        Raises Unusable where the last one cannot be opened.
        """
        found = sorted(store.list(f"{names.DOMAINS}/{domain}/keys"), key=lambda one: one.put_at)
        if found:
            return self.open(store, domain, Path(found[-1].key).stem)
        return self.made(store, domain)

    def made(self, store: Store, domain: str) -> DomainKey:
        """A new key for what is sealed from now on."""
        key = DomainKey(self._random(SECRET))
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
            record = keys.wrapped(there, key, self._current, self._random(NONCE))
        store.put(names.record_key(domain, key.id), keys.encode(record))

    def rewrap(self, store: Store) -> int:
        """Have every record of a store wrapped by the current key alone; how many were changed.

        Interrupted and done again it goes on. Raises Unusable where one cannot be opened.
        """
        changed = 0
        for listed in list(store.list(names.DOMAINS)):
            parts = listed.key.split("/")
            if len(parts) != 4 or parts[2] != "keys":
                continue
            domain, key_id = parts[1], Path(parts[3]).stem
            record = self._record(store, domain, key_id)
            if [one.by for one in record.wrapped] != [keys.wrapping_id(self._current)]:
                key = keys.unwrap(record, self._wrapping)
                fresh = keys.new_record(domain, key, self._current, self._random(NONCE))
                store.put(listed.key, keys.encode(fresh))
                changed += 1
        return changed

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
