"""Whatever is sealed, copied, deleted and interrupted in whatever order: what a store shows comes
back as it went in, and what has a whole copy somewhere is never lost."""

import contextlib
import os
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kybernate.artifacts import names, signing
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import Manifest
from kybernate.ladder import copying, reading, writing
from kybernate.ladder.keyring import KeyRing
from kybernate.ladder.progress import Course
from kybernate.ladder.writing import Writing
from kybernate.runtime.clock import SystemClock
from kybernate.stores.errors import Away
from kybernate.stores.ram import Ram
from kybernate.testing.artifacts import FACTS, made

SIGNER = made().signer
TRUSTED: signing.Trusted = {signing.key_id(SIGNER.public_key()): SIGNER.public_key()}
NAMES = st.sampled_from(["one", "two", "three"])
BODIES = {
    "nothing": b"",
    "little": b"x",
    "some": b"y" * 1000,
    "zeros": bytes(1000),
    "two chunks": b"z" * 3_000_000,
    "many zeros": bytes(4_000_000),
}
CONTENTS = st.dictionaries(
    st.sampled_from(["a", "b/c", "d"]), st.sampled_from(sorted(BODIES)), min_size=1
)
LEFT = st.integers(0, 6)


class Dying(Ram):
    """Its user dies (Away) at a change of its choice; what was put before stays."""

    def __init__(self) -> None:
        super().__init__(2**30, SystemClock().now)
        self.left: int | None = None

    def put(self, key: str, content: bytes | bytearray | memoryview) -> None:
        """As the port says, until it dies."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Away("killed")
        super().put(key, content)


class Ladder(RuleBasedStateMachine):
    """Two stores; `held` is what each shows, by our books."""

    def __init__(self) -> None:
        super().__init__()
        self.stores = [Dying(), Dying()]
        self.held: list[dict[str, dict[str, bytes]]] = [{}, {}]
        self.ring = KeyRing(os.urandom(32))

    @rule(which=st.integers(0, 1), name=NAMES, called=CONTENTS, left=st.none() | LEFT)
    def seal(self, which: int, name: str, called: dict[str, str], left: int | None) -> None:
        """Into a store, killed after so many changes or not at all."""
        contents = {path: BODIES[body] for path, body in called.items()}
        store = self.stores[which]
        store.left = left
        try:
            key = self.ring.newest(store, "default")
            known = writing.known([self._manifest(which, n) for n in self.held[which]], key)
            with Writing(store, "default", key, Course(SystemClock()), known) as out:
                for path, body in sorted(contents.items()):
                    out.add(path, [body[at : at + 2**21] for at in range(0, len(body), 2**21)])
                out.seal("default", name, FACTS, SIGNER)
            self.held[which][name] = contents
        except Away:
            pass
        finally:
            store.left = None

    @rule(which=st.integers(0, 1), name=NAMES, left=st.none() | LEFT)
    def copy(self, which: int, name: str, left: int | None) -> None:
        """To the other store, killed or not."""
        if name not in self.held[which]:
            return
        source, target = self.stores[which], self.stores[1 - which]
        opened = reading.opened(source, "default", name, TRUSTED)
        target.left = left
        try:
            key = self.ring.open(source, "default", opened.manifest.key)
            self.ring.lend(target, "default", key)
            copying.copy_packs(source, target, opened.manifest, key, Course(SystemClock()))
            target.put(names.manifest_key("default", name), opened.blob)
            self.held[1 - which][name] = self.held[which][name]
        except Away:
            pass
        finally:
            target.left = None

    @rule(which=st.integers(0, 1), name=NAMES)
    def demote(self, which: int, name: str) -> None:
        """What the other store holds too may go here: the manifest, then what no other names."""
        if name not in self.held[0] or name not in self.held[1]:
            return
        store = self.stores[which]
        store.delete(names.manifest_key("default", name))
        del self.held[which][name]
        needed = {key for n in self.held[which] for key in self._manifest(which, n).pack_keys}
        for one in list(store.list("domains/default/packs")):
            if one.key not in needed:
                store.delete(one.key)

    @rule(which=st.integers(0, 1), name=NAMES, at=st.integers(0, 10**9), bit=st.integers(0, 7))
    def rot(self, which: int, name: str, at: int, bit: int) -> None:
        """A bit flips in a pack: refused or right, never wrong, and it does not spread."""
        if name not in self.held[which]:
            return
        store, manifest = self.stores[which], self._manifest(which, name)
        for key in manifest.pack_keys[:1]:
            whole = bytes(store.get(key))
            altered = bytearray(whole)
            altered[at % len(whole)] ^= 1 << bit
            store.put(key, altered)
            with contextlib.suppress(Unusable):
                assert self._contents(which, name) == self.held[which][name]
            opened = self.ring.open(store, "default", manifest.key)
            try:
                copying.copy_packs(store, Dying(), manifest, opened, Course(SystemClock()))
            except Unusable:
                pass
            else:
                raise AssertionError("a damaged pack was copied")
            store.put(key, whole)

    @invariant()
    def what_is_shown_comes_back(self) -> None:
        """And nothing is shown that our books do not have."""
        for which, held in enumerate(self.held):
            shown = {one.key.split("/")[2] for one in self.stores[which].list("manifests")}
            assert shown == held.keys()
            for name, contents in held.items():
                assert self._contents(which, name) == contents

    def _manifest(self, which: int, name: str) -> Manifest:
        return reading.opened(self.stores[which], "default", name, TRUSTED).manifest

    def _contents(self, which: int, name: str) -> dict[str, bytes]:
        store, manifest = self.stores[which], self._manifest(which, name)
        key = self.ring.open(store, "default", manifest.key)
        with tempfile.TemporaryDirectory() as folder:
            reading.extract(store, manifest, key, Path(folder), Course(SystemClock()))
            return {file.path: (Path(folder) / file.path).read_bytes() for file in manifest.files}


TestLadder = Ladder.TestCase
TestLadder.settings = settings(max_examples=15, stateful_step_count=10, deadline=None)
