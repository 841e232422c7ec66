"""
Having a checkpoint from another store: another node's, or the object store.

Called by: `peers`, `objects`. Rule: the other is not trusted: the signature is checked before
anything is written, each pack's chunks when it has arrived, and only the whole becomes visible.
Rule: packs that are here already do not come again; so what was interrupted goes on. Rule: who
waits for a checkpoint uses it while it comes: what it needs first is waited for, the rest follows.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from kybernate.artifacts import names
from kybernate.artifacts.faults import DAMAGE, Unusable
from kybernate.artifacts.packs import Pack
from kybernate.ladder import carrying, copying, reading
from kybernate.ladder.progress import Course, Progress
from kybernate.ladder.reading import Opened
from kybernate.model.checkpoint import Fingerprint, Flaw
from kybernate.stores.around import Around
from kybernate.stores.port import Store as Far
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store, admit


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to fetch. `signature` is the published one; `here` is where it is to wake."""

    namespace: str
    name: str
    signature: str = ""
    here: Fingerprint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Progress: bytes of packs, and bytes per second so far."""

    done: int
    total: int
    rate: float

    @property
    def seconds_left(self) -> float:
        """At this rate; 0 where there is none yet."""
        return (self.total - self.done) / self.rate if self.rate else 0.0


Tell = Callable[[Fetched], None]
Use = Callable[[Sealed], None]
"""Takes contents out of a checkpoint that may not be here as a whole yet; raises what it likes."""


def telling(told: Tell) -> Callable[[Progress], None]:
    """A course's progress, as it is told here."""

    def tell(progress: Progress) -> None:
        done = min(progress.done, progress.total)
        told(Fetched(done=done, total=progress.total, rate=progress.rate))

    return tell


def here_already(here: Store, wanted: Wanted, use: Use | None = None) -> Sealed | None:
    """Where it is on this node, verified, or used; None where it is not, or is damaged. Raises
    Unusable for what no copy of it mends, and what `use` raises."""
    asked = (wanted.namespace, wanted.name, wanted.here, wanted.signature)
    try:
        if use is None:
            return here.open(*asked)
        sealed = here.believed(*asked)
        use(sealed)
        return sealed
    except Unusable as problem:
        if problem.reason is not Flaw.ABSENT and problem.reason not in DAMAGE:
            raise
    return None


def published(far: Far, here: Store, wanted: Wanted) -> Opened:
    """Its manifest there, which is that of what was published. Raises Unusable, and what the store
    raises."""
    opened = reading.opened(far, wanted.namespace, wanted.name, here.keys.trusted)
    if wanted.signature and not carrying.same(opened, wanted.signature):
        raise Unusable(Flaw.NOT_PUBLISHED, f"{wanted.namespace}/{wanted.name}")
    return opened


def fetch(
    far: Far, here: Store, wanted: Wanted, course: Course, use: Use | None = None
) -> tuple[Sealed, int]:
    """It, verified, on this node, and how many bytes of packs came for it; used, while it comes.

    Raises Unusable, NoRoom, NotSealed, Ended, BadKeys, and what the other store and `use` raise.
    """
    opened = published(far, here, wanted)
    manifest, shelf = opened.manifest, replace(here.shelf, store=far)
    admit(Sealed(opened=opened, shelf=shelf), wanted.here, wanted.signature)
    key = shelf.key(manifest)
    course.expect(manifest.packed)
    with here.incoming(opened, key) as incoming:
        missing = incoming.missing(course)

        def bring(pack: Pack) -> None:
            course.check()
            incoming.take(pack, copying.fetched(far, manifest.domain, pack, key))
            course.did(pack.size)

        with ThreadPoolExecutor(copying.AT_ONCE, thread_name_prefix="fetching") as threads:
            keys = (names.pack_key(manifest.domain, pack.name) for pack in missing)
            coming = {one: threads.submit(bring, p) for one, p in zip(keys, missing, strict=True)}
            try:
                if use is not None:
                    nearby = Nearby(here.shelf.store, coming)
                    use(Sealed(opened=opened, shelf=replace(here.shelf, store=nearby)))
                for one in coming.values():
                    one.result()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return incoming.settle(), sum(pack.size for pack in missing)


class Nearby(Around):
    """A node's store, some objects of which are on their way: see `port.Store`. What is listed is
    there."""

    def __init__(self, store: Far, coming: Mapping[str, Future[None]]) -> None:
        super().__init__(store)
        self._coming = coming

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says, once it is there. Raises what bringing it raised."""
        if (coming := self._coming.get(key)) is not None:
            coming.result()
        return super().get(key, offset, size, into)
