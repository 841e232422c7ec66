"""
Copying a checkpoint from one store to another: packs, the domain's key, the manifest last.

Called by: `kyb`, agents. Memory: AT_ONCE packs, of 64 MiB at most. Rule: a pack
that is there already is not moved again, so what was interrupted goes on. Rule: what is copied is
checked, chunk by chunk, before it is put: a damaged copy does not spread.
"""

from concurrent.futures import ThreadPoolExecutor

from kybernate.artifacts import names, packs
from kybernate.artifacts.chunks import TAG, DomainKey
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import Manifest
from kybernate.artifacts.packs import Pack
from kybernate.ladder.progress import Course
from kybernate.ladder.publishing import has, publish, putting_again
from kybernate.ladder.reading import Opened
from kybernate.model.checkpoint import Flaw
from kybernate.stores.errors import Absent
from kybernate.stores.pages import taken
from kybernate.stores.port import Store

AT_ONCE = 4


def copy(source: Store, target: Store, opened: Opened, key: DomainKey, course: Course) -> int:
    """Have a checkpoint in the target, the manifest's object as it is given; how many bytes of
    packs were put. The target has a record of the key.

    Raises Unusable, Ended, Collected, and what the stores raise; what was put stays.
    """
    moved = 0

    def put() -> None:
        nonlocal moved
        moved += copy_packs(source, target, opened.manifest, key, course)
        publish(target, opened.manifest, opened.blob, course)

    putting_again(put)
    return moved


def copy_packs(
    source: Store, target: Store, manifest: Manifest, key: DomainKey, course: Course
) -> int:
    """Have all packs of a manifest in the target; how many bytes were put.

    Raises Unusable, Ended, and what the stores raise; what was put stays.
    """
    course.expect(manifest.packed)

    def copy(pack: Pack) -> int:
        course.check()
        moved = 0
        if not has(target, manifest.domain, pack):
            content = fetched(source, manifest.domain, pack, key)
            target.put(names.pack_key(manifest.domain, pack.name), content)
            moved = len(content)
        course.did(pack.size)
        return moved

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="copying") as threads:
        try:
            return sum(threads.map(copy, manifest.packs))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def fetched(store: Store, domain: str, pack: Pack, key: DomainKey) -> memoryview:
    """A whole pack, every chunk of it opened. Raises Unusable."""
    try:
        content = store.get(names.pack_key(domain, pack.name))
    except Absent:
        raise Unusable(Flaw.PACK_MISSING, pack.name) from None
    check_pack(pack, content, key)
    return content


def check_pack(pack: Pack, content: memoryview, key: DomainKey) -> None:
    """That it is this pack, every chunk of it opened. Raises Unusable."""
    packs.check(pack.name, content)
    room = taken(max((chunk.size for chunk in pack.chunks), default=0))
    for chunk, begin in zip(pack.chunks, pack.offsets, strict=True):
        sealed = content[begin : begin + chunk.size + TAG]
        key.open(chunk.name, sealed, room[: chunk.size])


def check_packs(store: Store, manifest: Manifest, key: DomainKey, course: Course) -> None:
    """Open every chunk of every pack. Raises Unusable, Ended, and what the store raises."""
    course.expect(manifest.packed)

    def check(pack: Pack) -> None:
        course.check()
        fetched(store, manifest.domain, pack, key)
        course.did(pack.size)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="checking") as threads:
        try:
            for _ in threads.map(check, manifest.packs):
                pass
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
