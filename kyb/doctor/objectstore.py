"""
The object store, tried: small objects are put, read back, compared and deleted under a key of ours.

Called by: `node`. Rule: nothing is made but these objects, and they are deleted whatever happens;
bounded in bytes, and in time by the store's own deadlines; a folder that is not there stays so.
"""

import os
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from kyb.doctor.facts import ObjectStore, Rates
from kybernate.clients.errors import Refused, Retry
from kybernate.ladder.keyring import BadKeys, KeyRing
from kybernate.stores import places, port
from kybernate.stores.errors import Away, Denied, Faulty, NoRoom
from kybernate.stores.places import BadPlace
from kybernate.stores.port import Store

SCRATCH = "doctor"
_TOGETHER = 4  # objects at once, as a wake has ahead
_SIZE, _SMALL = 8 << 20, 1 << 10  # bytes of each
_MENDS: tuple[tuple[type[Exception], str], ...] = (
    (BadPlace, "name a folder, or s3://BUCKET/PREFIX"),
    (Away, "is AWS_ENDPOINT_URL right, and does the network let us?"),
    (Denied, "kyb store check says what is missing; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"),
    (NoRoom, "make room"),
    (Faulty, "look at the disk: dmesg"),
)


class _Wrong(Exception):
    """What came is not what was put."""


def tried(
    place: str, wrapping: Path | None, environ: Mapping[str, str], *, measure: bool
) -> ObjectStore:
    """What became of it; some seconds."""
    keys, keys_problem = _keys(wrapping)
    rates, problem, mend = None, "", ""
    try:
        if not places.is_bucket(place) and not Path(place).is_dir():
            raise BadPlace(f"there is no folder {place}")
        found = _moved(places.store(place, environ), _SIZE if measure else _SMALL)
        rates = found if measure else None
    except _Wrong as wrong:
        problem, mend = str(wrong), "do not use it: it loses or changes what it is given"
    except (Refused, Retry) as error:
        problem = f"{type(error).__name__}: {error}"
        mend = next((text for kind, text in _MENDS if isinstance(error, kind)), "look at the store")
    return ObjectStore(
        place=place, rates=rates, problem=problem, mend=mend, keys=keys, keys_problem=keys_problem
    )


def _moved(store: Store, size: int) -> Rates:
    """There and back. Raises what the store raises, _Wrong."""
    list(store.list(SCRATCH))  # a bucket that is not there says so only here
    keys = [f"{SCRATCH}/{uuid.uuid4().hex}" for _ in range(_TOGETHER)]
    try:
        with ThreadPoolExecutor(_TOGETHER) as threads:
            return _there_and_back(store, keys, os.urandom(size), threads)
    except BaseException:
        for key in keys:  # all that was begun has ended
            with suppress(Refused, Retry):
                store.delete(key)
        raise


def _there_and_back(
    store: Store, keys: list[str], content: bytes, threads: ThreadPoolExecutor
) -> Rates:
    began = time.monotonic()
    list(threads.map(lambda key: store.put(key, content), keys))
    put = time.monotonic()
    came = list(threads.map(store.get, keys))
    ended = time.monotonic()
    if any(one != content for one in came):
        raise _Wrong("what came back is not what was put")
    gone = list(threads.map(store.delete, keys))
    if not all(gone) or any(threads.map(lambda key: port.is_there(store, key), keys)):
        raise _Wrong("what is deleted stays")
    whole = len(content) * len(keys)
    return Rates(into=whole / max(put - began, 1e-9), out_of=whole / max(ended - put, 1e-9))


def _keys(wrapping: Path | None) -> tuple[int, str]:
    """How many there are, and what is wrong with them."""
    if wrapping is None:
        return 0, "no keys that wrap are given"
    try:
        KeyRing.of_folder(wrapping)
    except BadKeys as problem:
        return 0, f"keys that wrap: {problem}"
    return len(list(wrapping.glob("*.key"))), ""
