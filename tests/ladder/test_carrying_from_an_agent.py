"""A checkpoint of an agent's folder, in a store and back: the very one it was, whatever happens.

Real: files, keys, signatures, chunks. The store is in memory and breaks when it is told to.
"""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kybernate.artifacts import signing, v0
from kybernate.artifacts.chunks import CHUNK, Bytes
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import Manifest, renamed
from kybernate.ladder import carrying, plain, reading
from kybernate.ladder.carrying import AnotherThere, Authority
from kybernate.ladder.keyring import KeyRing
from kybernate.ladder.plain import Draft, Plain
from kybernate.ladder.progress import Course, Ended, Progress
from kybernate.runtime.clock import SystemClock
from kybernate.stores.errors import Away
from kybernate.stores.ram import Ram
from kybernate.testing.artifacts import FACTS

SIGNER = Ed25519PrivateKey.generate()
TRUSTED = {signing.key_id(SIGNER.public_key()): SIGNER.public_key()}
OURS = Authority(ring=KeyRing(os.urandom(32)), trusted=TRUSTED, signer=SIGNER)
BODIES = {
    "gpu/0": os.urandom(40 * CHUNK) + bytes(3 * CHUNK) + b"end",
    "gpu/1": b"again" * CHUNK,
    "image/core-1.img": b"process",
    "image/empty": b"",
    "image/zeros": bytes(CHUNK + 1),
}
SIZE = sum(map(len, BODIES.values()))


class Breaking(Ram):
    """It goes away after so many puts of packs, or with each of them."""

    def __init__(self) -> None:
        super().__init__(2**30, SystemClock().now)
        self.left: int | None = None
        self.put_bytes = 0

    def put(self, key: str, content: Bytes) -> None:
        """As the port says, as long as it is there."""
        if self.left is not None and "/keys/" not in key:
            if self.left == 0:
                raise Away("stopped")
            self.left -= 1
        super().put(key, content)
        self.put_bytes += len(content)


def course(**more: object) -> Course:
    return Course(SystemClock(), **more)  # type: ignore[arg-type]


def sealed(folder: Path, name: str = "one", facts: Facts = FACTS) -> Plain:
    """In an agent's folder."""
    with Draft(folder, "default", name) as draft:
        for path, body in BODIES.items():
            (draft.files / path).parent.mkdir(exist_ok=True)
            (draft.files / path).write_bytes(body)
        draft.seal(facts, BODIES, SIGNER)
    return plain.opened(folder, "default", name, TRUSTED)


@pytest.fixture
def agents(tmp_path: Path) -> Plain:
    return sealed(tmp_path / "agent")


def back(store: Ram, name: str = "one") -> tuple[Manifest, dict[str, bytes]]:
    manifest = reading.opened(store, "default", name, TRUSTED).manifest
    key = OURS.ring.open(store, manifest.domain, manifest.key)
    files = reading.in_order(store, manifest, key, course())
    return manifest, {file.path: b"".join(rest) for file, rest in files}


def test_it_comes_back_with_the_manifest_that_was_signed(agents: Plain) -> None:
    store = Breaking()
    carrying.carry(agents, store, OURS, course())
    manifest, files = back(store)
    assert files == BODIES
    key = OURS.ring.open(store, manifest.domain, manifest.key)
    content = reading.origin(store, manifest, key)
    assert content == agents.content
    assert manifest.origin is not None
    signing.check(content, manifest.origin.signature, TRUSTED, signing.V0)
    assert v0.decode(content) == agents.manifest
    assert manifest.size == agents.manifest.size == SIZE
    assert carrying.same(reading.opened(store, "default", "one", TRUSTED), agents.signature)


def test_interrupted_anywhere_it_goes_on_and_sends_nothing_twice(agents: Plain) -> None:
    whole = Breaking()
    carrying.carry(agents, whole, OURS, course())
    store, tries = Breaking(), 0
    while True:
        store.left = 2  # so many objects more each time: the last two are an intent, the manifest
        try:
            carrying.carry(agents, store, OURS, course())
        except Away:
            tries += 1
            assert not list(store.list("manifests"))
        else:
            break
    assert tries >= 2
    assert back(store)[1] == BODIES
    record = 1000  # about the size of a key record
    assert abs(store.put_bytes - whole.put_bytes) < record


def test_carried_again_it_costs_nothing(agents: Plain) -> None:
    store = Breaking()
    carrying.carry(agents, store, OURS, course())
    before = store.put_bytes
    assert carrying.carry(agents, store, OURS, course()).written == 0
    assert store.put_bytes == before


def test_a_pack_that_was_lost_is_put_again_and_not_built_on(agents: Plain, tmp_path: Path) -> None:
    store = Breaking()
    carrying.carry(agents, store, OURS, course())
    lost = next(iter(store.list("domains/default/packs")))
    store.delete(lost.key)
    other = sealed(tmp_path / "agent", "two", replace(FACTS, sealed_at=FACTS.sealed_at + 60))
    carrying.carry(other, store, OURS, course())
    assert back(store, "two")[1] == BODIES
    carrying.carry(agents, store, OURS, course())
    assert back(store)[1] == BODIES


def test_another_checkpoint_of_that_name_stays(agents: Plain, tmp_path: Path) -> None:
    store = Breaking()
    carrying.carry(agents, store, OURS, course())
    before = {one.key: bytes(store.get(one.key)) for one in store.list()}
    other = sealed(tmp_path / "other", "one", replace(FACTS, pod="another"))
    with pytest.raises(AnotherThere, match="default/one is another checkpoint in the store"):
        carrying.carry(other, store, OURS, course())
    assert {one.key: bytes(store.get(one.key)) for one in store.list()} == before


def test_what_rotted_in_the_folder_is_not_carried(agents: Plain) -> None:
    path = agents.folder / "files/gpu/0"
    body = bytearray(path.read_bytes())
    body[5 * CHUNK] ^= 1
    path.write_bytes(body)
    store = Breaking()
    with pytest.raises(Unusable, match="a file is not what was sealed"):
        carrying.carry(agents, store, OURS, course())
    assert not list(store.list("manifests"))


def test_it_can_be_called_off_and_tells_how_far_it_is(agents: Plain) -> None:
    seen: list[Progress] = []
    ended = threading.Event()

    def told(progress: Progress) -> None:
        seen.append(progress)
        if progress.done > SIZE // 2:
            ended.set()

    store = Breaking()
    with pytest.raises(Ended):
        carrying.carry(agents, store, OURS, course(told=told, ended=ended))
    assert seen[-1].total == SIZE + len(agents.content)
    assert seen[-1].rate > 0
    assert not list(store.list("manifests"))
    carrying.carry(agents, store, OURS, course())
    assert back(store)[1] == BODIES


def test_a_renamed_one_does_not_claim_to_be_the_first(agents: Plain) -> None:
    store = Breaking()
    manifest = carrying.carry(agents, store, OURS, course()).manifest
    assert renamed(manifest, "default", "two").origin is None
