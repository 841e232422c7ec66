"""Collecting a store beside those who write to it, wake from it and collect it too: nothing that a
manifest names is ever gone, wherever each of them is stopped, goes on again, or dies.

Real: the pipelines and the collector. Told: the clocks, and who comes when.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kybernate.artifacts import collection, names, signing
from kybernate.artifacts.chunks import Bytes
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import Manifest
from kybernate.ladder import copying, reading, writing
from kybernate.ladder.collecting import STALE_S, Collecting
from kybernate.ladder.keyring import KeyRing
from kybernate.ladder.progress import Course
from kybernate.ladder.publishing import Collected
from kybernate.ladder.writing import Known, Writing
from kybernate.model.checkpoint import Flaw
from kybernate.stores.port import Listed, Store
from kybernate.stores.ram import Ram
from kybernate.testing.artifacts import FACTS, made
from kybernate.testing.clock import START

SIGNER = made().signer
TRUSTED: signing.Trusted = {signing.key_id(SIGNER.public_key()): SIGNER.public_key()}
RING = KeyRing(os.urandom(32))
DAY = 24 * 3600.0
BODY = b"contents of a card" * 1000


class Clock:
    """A second later at each look, and after each wait as long as that was."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> float:
        self.time += 0.001
        return self.time

    def monotonic(self) -> float:
        return self.now()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.time += seconds
        return event.is_set()


class Killed(BaseException):
    """As a process that is killed: nothing it does afterwards reaches the store."""


class Actor:
    """A store as one process sees it; something happens before its n-th step."""

    def __init__(self, store: Store, at: int = -1, happens: Callable[[], None] = lambda: None):
        self._store, self._at, self._happens = store, at, happens
        self._lock = threading.RLock()
        self.steps, self.dead = 0, False

    def _step(self) -> None:
        with self._lock:
            self.steps += 1
            if self.steps - 1 == self._at:
                self._happens()
        if self.dead:
            raise Killed

    def die(self) -> None:
        self.dead = True

    def put(self, key: str, content: Bytes) -> None:
        self._step()
        self._store.put(key, content)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        self._step()
        return self._store.get(key, offset, size, into)

    def stat(self, key: str) -> Listed:
        self._step()
        return self._store.stat(key)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        self._step()
        return self._store.list(prefix)

    def delete(self, key: str) -> bool:
        self._step()
        return self._store.delete(key)


class Scene:
    """A store in which `kept` is a checkpoint, and the pack of `old` is one that nobody names."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Ram(2**30, self.clock.now)
        seal(self.store, self.clock, "kept", b"kept" * 100)
        old = seal(self.store, self.clock, "old", BODY)
        self.key = RING.newest(self.store, "default")
        self.known = writing.known([old], self.key)
        self.store.delete(names.manifest_key("default", "old"))
        self.packs = {one.key for one in self.store.list("domains/default/packs")}

    def collect(self, store: Store, grace: float = 0.0) -> tuple[str, ...]:
        return Collecting(store, TRUSTED, self.clock, grace).collect("default").gone

    def collect_twice(self) -> None:
        """Long enough that what the dead have left goes."""
        for _ in range(2):
            self.clock.time += 2 * STALE_S
            self.collect(self.store)

    def shown(self) -> set[str]:
        """Names of the checkpoints; each has come back whole."""
        found = {one.key.split("/")[2] for one in self.store.list("manifests")}
        for name in found:
            back(self.store, name)
        return found


def seal(
    store: Store, clock: Clock, name: str, body: bytes, known: Known | None = None
) -> Manifest:
    key = RING.newest(store, "default")
    with Writing(store, "default", key, Course(clock), known) as out:
        out.add("gpu/0", [body])
        return out.seal("default", name, FACTS, SIGNER)[0]


def back(store: Store, name: str) -> bytes:
    manifest = reading.opened(store, "default", name, TRUSTED).manifest
    key = RING.open(store, "default", manifest.key)
    return b"".join(reading.stream(store, manifest, key, manifest.files[0]))


def writes(scene: Scene, known: bool) -> Callable[[Store], None]:
    """Seals `new` with the contents of the pack that nobody names."""

    def work(store: Store) -> None:
        with suppress(Collected):
            seal(store, scene.clock, "new", BODY, scene.known if known else None)

    return work


def copies(scene: Scene) -> Callable[[Store], None]:
    """Copies `old` from another store to here, where its pack is."""
    source = Ram(2**30, scene.clock.now)
    RING.lend(source, "default", scene.key)
    manifest = seal(source, scene.clock, "old", BODY)
    assert set(manifest.pack_keys) < scene.packs
    opened = reading.opened(source, "default", "old", TRUSTED)

    def work(store: Store) -> None:
        with suppress(Collected):
            copying.copy(source, store, opened, scene.key, Course(scene.clock))

    return work


WAYS: dict[str, Callable[[Scene], Callable[[Store], None]]] = {
    "seals what is known": lambda scene: writes(scene, known=True),
    "seals the same pack anew": lambda scene: writes(scene, known=False),
    "copies": copies,
    "collects": lambda scene: lambda store: scene.collect(store) and None,
}


def _steps(work: Callable[[Store], None], scene: Scene) -> int:
    actor = Actor(scene.store)
    work(actor)
    return actor.steps


def _all_steps(way: str) -> int:
    scene = Scene()
    return _steps(WAYS[way](scene), scene)


@pytest.mark.parametrize("way", WAYS)
def test_a_collector_between_any_two_steps(way: str) -> None:
    for at in range(_all_steps(way)):
        scene = Scene()
        work = WAYS[way](scene)
        actor = Actor(scene.store, at, lambda scene=scene: scene.collect(scene.store) and None)
        work(actor)
        assert scene.shown() >= {"kept"}


@pytest.mark.parametrize("way", WAYS)
def test_in_the_middle_of_a_collector(way: str) -> None:
    for at in range(_all_steps("collects")):
        scene = Scene()
        work = WAYS[way](scene)
        collector = Actor(scene.store, at, lambda scene=scene, work=work: work(scene.store))
        scene.collect(collector)
        assert scene.shown() >= {"kept"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("jumps", [False, True], ids=["", "the clock jumps ten years"])
def test_each_is_stopped_anywhere_and_goes_on_when_the_other_is_over(way: str, jumps: bool) -> None:
    """One comes as far as its i-th step, the other as far as its j-th; the first goes on to its
    end, then the other: every pair of places, a third of them with a clock that jumps and a third
    collector between."""
    for first, second in ((WAYS[way], WAYS["collects"]), (WAYS["collects"], WAYS[way])):
        scene = Scene()
        count = _steps(first(scene), scene), _all_steps(way) + _all_steps("collects")
        for i in range(count[0]):
            for j in range(0, count[1], 1):
                if not _interleaved(first, second, i, j, jumps):
                    break


def _interleaved(
    first: Callable[[Scene], Callable[[Store], None]],
    second: Callable[[Scene], Callable[[Store], None]],
    i: int,
    j: int,
    jumps: bool,
) -> bool:
    """Whether the second has a j-th step."""
    scene = Scene()
    stopped, go_on = threading.Event(), threading.Event()
    works = first(scene), second(scene)

    def stop() -> None:
        stopped.set()
        assert go_on.wait(60)

    other = Actor(scene.store, j, stop)
    thread = threading.Thread(target=lambda: (works[1](other), stopped.set()))

    def meanwhile() -> None:
        thread.start()
        assert stopped.wait(60)
        if jumps:
            scene.clock.time += 3650 * DAY
            scene.collect(scene.store)

    try:
        works[0](Actor(scene.store, i, meanwhile))
        scene.shown()
    finally:
        go_on.set()
        if thread.ident is not None:
            thread.join()
    assert scene.shown() >= {"kept"}, (i, j)
    return other.steps > j


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_any_step_nothing_is_lost_and_the_next_one_is_not_hindered(way: str) -> None:
    for at in range(_all_steps(way)):
        scene = Scene()
        work = WAYS[way](scene)
        actor = Actor(scene.store, at)
        actor._happens = actor.die
        with pytest.raises(Killed):
            work(actor)
        assert scene.shown() >= {"kept"}
        scene.collect_twice()
        work(scene.store)
        assert scene.shown() >= {"kept"}
        scene.collect_twice()
        left = {one.key.split("/")[2] for one in scene.store.list("domains")}
        assert left <= {"keys", "packs", "seen"}, f"what the dead left stays, after {at}"


def test_a_pack_goes_when_the_grace_time_is_over_and_what_is_named_stays() -> None:
    scene = Scene()
    assert scene.collect(scene.store, grace=DAY) == ()
    scene.clock.time += DAY - 100
    assert scene.collect(scene.store, grace=DAY) == ()
    scene.clock.time += 200
    assert len(scene.collect(scene.store, grace=DAY)) == 1
    assert len(list(scene.store.list("domains/default/packs"))) == 1
    assert scene.shown() == {"kept"}
    assert scene.collect(scene.store, grace=0) == ()


def test_a_wake_that_has_begun_ends_within_the_grace_time() -> None:
    scene = Scene()
    seal(scene.store, scene.clock, "waking", BODY)

    def collect() -> None:
        scene.store.delete(names.manifest_key("default", "waking"))
        scene.collect(scene.store, grace=DAY)

    for at in range(1, 3):  # after its manifest was read
        assert back(Actor(scene.store, at, collect), "waking") == BODY
        seal(scene.store, scene.clock, "waking", BODY)


def test_a_wake_that_comes_too_late_is_refused_in_words() -> None:
    scene = Scene()
    seal(scene.store, scene.clock, "waking", BODY)

    def collect() -> None:
        scene.store.delete(names.manifest_key("default", "waking"))
        scene.collect(scene.store)

    with pytest.raises(Unusable) as refused:
        back(Actor(scene.store, 2, collect), "waking")
    assert refused.value.reason is Flaw.PACK_MISSING


def test_what_was_named_in_between_waits_anew() -> None:
    scene = Scene()
    scene.collect(scene.store, grace=DAY)
    seal(scene.store, scene.clock, "again", BODY)
    scene.clock.time += 2 * DAY
    assert scene.collect(scene.store, grace=DAY) == ()
    scene.store.delete(names.manifest_key("default", "again"))
    assert scene.collect(scene.store, grace=DAY) == ()
    scene.clock.time += 2 * DAY
    assert len(scene.collect(scene.store, grace=DAY)) == 1


@pytest.mark.parametrize("jump", [-3650 * DAY, 3650 * DAY])
def test_a_clock_that_jumped_loses_nothing_and_does_not_keep_for_ever(jump: float) -> None:
    scene = Scene()
    scene.collect(scene.store, grace=DAY)
    scene.clock.time += jump
    scene.collect(scene.store, grace=DAY)
    assert scene.shown() == {"kept"}
    scene.clock.time += 2 * DAY
    scene.collect(scene.store, grace=DAY)
    assert len(list(scene.store.list("domains/default/packs"))) == 1


@pytest.mark.parametrize(
    "rubbish", ["manifests/default/broken", "domains/default/intents/ab", "manifests/default"]
)
def test_what_cannot_be_read_protects_every_pack_it_could_name(rubbish: str) -> None:
    scene = Scene()
    scene.store.put(rubbish, b"{}")
    collecting = Collecting(scene.store, TRUSTED, scene.clock, 0)
    found = collecting.collect("default").found
    if rubbish != "manifests/default":  # which is no manifest's place, nor below one
        assert rubbish in found.alone
        assert {one.key for one in scene.store.list("domains/default/packs")} == scene.packs


def test_a_foreign_manifest_protects_its_namespace_and_gold_images_alone() -> None:
    scene = Scene()
    seal(scene.store, scene.clock, "theirs", BODY)
    blob = bytes(scene.store.get("manifests/default/theirs"))
    scene.store.put("manifests/other/theirs", blob)  # misplaced: not to be believed
    key = RING.newest(scene.store, "gold.llama")
    scene.store.put(names.pack_key("gold.llama", "a" * 64), b"x")
    collecting = Collecting(scene.store, TRUSTED, scene.clock, 0)
    assert not collecting.plan("default").alone
    assert "manifests/other/theirs" in collecting.plan("gold.llama").alone
    assert collecting.domains() == ["default", "gold.llama"]
    assert key.id


def test_an_unreadable_sweep_stops_a_writer_until_it_is_old() -> None:
    scene = Scene()
    scene.store.put(f"{collection.sweeps('default')}/ab", b"rubbish")
    with pytest.raises(Collected, match="for too long"):
        seal(scene.store, scene.clock, "new", BODY)
    assert scene.shown() == {"kept"}
    scene.collect_twice()
    seal(scene.store, scene.clock, "new", BODY)
    assert scene.shown() == {"kept", "new"}


def test_whoever_is_taken_for_dead_notices() -> None:
    """Its intent is old when it wakes up, and goes before its manifest is put."""
    scene = Scene()
    publish_at = _all_steps("seals what is known") - 3  # before the manifest is put

    def sleep_long() -> None:
        scene.collect_twice()

    actor = Actor(scene.store, publish_at, sleep_long)
    with suppress(Collected):
        seal(actor, scene.clock, "new", BODY, scene.known)
    assert scene.shown() >= {"kept"}


def test_the_plan_changes_nothing_and_says_what_waits() -> None:
    scene = Scene()
    before = {one.key: bytes(scene.store.get(one.key)) for one in scene.store.list()}
    found = Collecting(scene.store, TRUSTED, scene.clock, DAY).plan("default")
    assert {one.key: bytes(scene.store.get(one.key)) for one in scene.store.list()} == before
    (left,) = found.sweep.waiting.values()
    assert left == pytest.approx(DAY, abs=60)
    assert found.size(found.sweep.waiting) > len(BODY)


def test_what_is_no_pack_is_not_deleted() -> None:
    scene = Scene()
    odd = ["domains/default/packs/readme", f"domains/default/packs/zz/{'a' * 64}"]
    for key in odd:
        scene.store.put(key, b"somebody's")
    scene.collect(scene.store)
    assert {one.key for one in scene.store.list("domains/default/packs")} > set(odd)


def test_called_off_it_ends_between_two_packs() -> None:
    scene = Scene()
    ended = threading.Event()
    ended.set()
    collecting = Collecting(scene.store, TRUSTED, scene.clock, 0, ended)
    assert collecting.collect("default").gone == ()


class Life(RuleBasedStateMachine):
    """Sealing, removing, collecting, dying at any step and clocks that jump, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = Ram(2**30, self.clock.now)
        self.held: dict[str, bytes] = {}

    @rule(
        name=st.sampled_from(["one", "two", "three"]),
        body=st.sampled_from([b"x" * 100, b"y" * 100, BODY]),
        dies=st.none() | st.integers(0, 14),
        interrupted=st.none() | st.tuples(st.integers(0, 14), st.integers(0, 20)),
        stale=st.booleans(),
    )
    def seal(
        self, name: str, body: bytes, dies: int | None, interrupted: tuple[int, int] | None,
        stale: bool,
    ) -> None:  # fmt: skip
        """By what was known, perhaps before something went; a collector comes in the middle, and
        perhaps dies there."""
        actor = Actor(self.store)
        if dies is not None:
            actor._at, actor._happens = dies, actor.die
        elif interrupted:
            actor._at = interrupted[0]
            actor._happens = lambda: self._collect(interrupted[1])
        manifests = [
            reading.opened(self.store, "default", held, TRUSTED).manifest for held in self.held
        ]
        try:
            known = writing.known(manifests, RING.newest(self.store, "default"))
            if stale and self.held and name not in self.held:
                self._remove(next(iter(self.held)))
            seal(actor, self.clock, name, body, known)
            self.held[name] = body
        except Killed:
            if any(one.key.endswith(f"/{name}") for one in self.store.list("manifests")):
                self.held[name] = back(self.store, name)  # as it was, or as it became
                assert self.held[name] in (body, self.held.get(name))
        except Collected:
            pass

    @rule(name=st.sampled_from(["one", "two", "three"]))
    def remove(self, name: str) -> None:
        """A manifest."""
        if name in self.held:
            self._remove(name)

    @rule(dies=st.none() | st.integers(0, 20))
    def collect(self, dies: int | None) -> None:
        """To its end or not."""
        self._collect(dies)

    @rule(days=st.sampled_from([-4000, -1, 1, 2, 4000]))
    def jump(self, days: int) -> None:
        """The store's clock, and ours."""
        self.clock.time = max(START, self.clock.time + days * DAY)

    @invariant()
    def what_is_kept_comes_back(self) -> None:
        """All of it, as it went in."""
        shown = {one.key.split("/")[2] for one in self.store.list("manifests")}
        assert shown == self.held.keys()
        for name, body in self.held.items():
            assert back(self.store, name) == body

    def _remove(self, name: str) -> None:
        self.store.delete(names.manifest_key("default", name))
        del self.held[name]

    def _collect(self, dies: int | None) -> None:
        actor = Actor(self.store)
        if dies is not None:
            actor._at, actor._happens = dies, actor.die
        with suppress(Killed):
            Collecting(actor, TRUSTED, self.clock, 0.0).collect("default")


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
