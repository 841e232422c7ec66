"""
What replicas of a gold image take in a store, and who shares with whom.

Real: files, keys, signatures, chunks. The store is in memory. Ratios are of the packs' bytes.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kybernate.artifacts import signing
from kybernate.artifacts.chunks import CHUNK
from kybernate.artifacts.facts import WOKEN_FROM, Facts
from kybernate.artifacts.faults import Unusable
from kybernate.ladder import carrying, plain, reading
from kybernate.ladder.carrying import Authority
from kybernate.ladder.collecting import Collecting
from kybernate.ladder.keyring import KeyRing
from kybernate.ladder.plain import Draft, Plain
from kybernate.ladder.progress import Course
from kybernate.runtime.clock import SystemClock
from kybernate.stores.ram import Ram
from kybernate.testing.artifacts import FACTS

SIGNER = Ed25519PrivateKey.generate()
TRUSTED = {signing.key_id(SIGNER.public_key()): SIGNER.public_key()}
OURS = Authority(ring=KeyRing(os.urandom(32)), trusted=TRUSTED, signer=SIGNER)
CHUNKS, REPLICAS, GOLD = 20, 10, "gold"
CHANGED = CHUNKS // 20  # 5 %
DOMAIN = f"gold.default.{GOLD}"


@pytest.fixture
def store() -> Ram:
    return Ram(2**31, SystemClock().now)


class Model:
    """Contents of an image, and of replicas that went on from there."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._chance = folder, random.Random(5)
        self.image = os.urandom(CHUNKS * CHUNK)

    def diverged(self) -> bytes:
        """With other bytes in 5 % of its chunks, at places of its own."""
        content = bytearray(self.image)
        for number in self._chance.sample(range(CHUNKS), CHANGED):
            content[number * CHUNK : (number + 1) * CHUNK] = os.urandom(CHUNK)
        return bytes(content)

    def sealed(self, name: str, content: bytes, facts: Facts, namespace: str = "default") -> Plain:
        """In an agent's folder."""
        with Draft(self._folder, namespace, name) as draft:
            (draft.files / "gpu").mkdir()
            (draft.files / "gpu/0").write_bytes(content)
            draft.seal(replace(facts, parts=()), ["gpu/0"], SIGNER)
        return plain.opened(self._folder, namespace, name, TRUSTED)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path)


def carry(one: Plain, store: Ram) -> str:
    """Its domain there."""
    return carrying.carry(one, store, OURS, Course(SystemClock())).manifest.domain


def of_replica(image: str) -> Facts:
    return replace(FACTS, gold=False, more={WOKEN_FROM: image})


def packs(store: Ram, domain: str) -> int:
    return sum(one.size for one in store.list(f"domains/{domain}/packs"))


def replicas(model: Model, store: Ram, image: str, namespace: str) -> Iterator[str]:
    for number in range(REPLICAS):
        one = model.sealed(f"replica-{number}", model.diverged(), of_replica(image), namespace)
        yield carry(one, store)


def test_ten_replicas_share_with_the_image_they_come_from(model: Model, store: Ram) -> None:
    assert carry(model.sealed(GOLD, model.image, FACTS.as_gold()), store) == DOMAIN
    one = packs(store, DOMAIN)
    assert set(replicas(model, store, GOLD, "default")) == {DOMAIN}
    assert one < packs(store, DOMAIN) <= 1.6 * one
    assert packs(store, "default") == 0


def test_ten_of_another_namespace_share_among_each_other_only(model: Model, store: Ram) -> None:
    """Whoever could see that its own bytes are there already would learn what others hold."""
    carry(model.sealed(GOLD, model.image, FACTS.as_gold()), store)
    one = packs(store, DOMAIN)
    assert set(replicas(model, store, f"default/{GOLD}", "team")) == {"team"}
    assert packs(store, DOMAIN) == one
    assert packs(store, "team") <= 1.6 * one
    keys = {
        listed.key.rsplit("/", 1)[1] for listed in store.list("domains") if "/keys/" in listed.key
    }
    assert len(keys) == 2


def test_two_images_share_nothing(model: Model, store: Ram) -> None:
    first = carry(model.sealed(GOLD, model.image, FACTS.as_gold()), store)
    second = carry(model.sealed("other", model.image, FACTS.as_gold()), store)
    assert min(packs(store, first), packs(store, second)) > CHUNKS * CHUNK


def test_what_comes_of_a_replica_is_where_that_is(model: Model, store: Ram) -> None:
    carry(model.sealed(GOLD, model.image, FACTS.as_gold()), store)
    carry(model.sealed("first", model.diverged(), of_replica(GOLD)), store)
    assert carry(model.sealed("second", model.diverged(), of_replica("first")), store) == DOMAIN


def test_where_the_image_is_not_in_the_store_it_is_its_namespaces(model: Model, store: Ram) -> None:
    assert carry(model.sealed("first", model.image, of_replica(GOLD)), store) == "default"
    carry(model.sealed(GOLD, model.image, FACTS.as_gold()), store)
    again = plain.opened(model._folder, "default", "first", TRUSTED)
    assert carry(again, store) == "default"  # it is there


def test_a_name_that_no_domain_can_have_is_refused(model: Model, store: Ram) -> None:
    long = model.sealed("x" * 63 + ".y" * 90, b"content", FACTS.as_gold())
    with pytest.raises(Unusable):
        carry(long, store)
    assert list(store.list("domains")) == []


def test_a_collector_keeps_what_replicas_need_of_an_image_that_is_gone(
    model: Model, store: Ram
) -> None:
    carry(model.sealed(GOLD, model.image, FACTS.as_gold()), store)
    content = model.diverged()
    carry(model.sealed("replica", content, of_replica(GOLD)), store)
    store.delete(f"manifests/default/{GOLD}")
    collecting = Collecting(store, TRUSTED, SystemClock(), grace=0.0)
    for _ in range(2):
        done = collecting.collect(DOMAIN)
        assert not done.found.alone
    opened = reading.opened(store, "default", "replica", TRUSTED)
    key = OURS.ring.open(store, DOMAIN, opened.manifest.key)
    files = reading.in_order(store, opened.manifest, key, Course(SystemClock()))
    assert {file.path: b"".join(rest) for file, rest in files}["gpu/0"] == content
