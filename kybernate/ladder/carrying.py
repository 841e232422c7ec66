"""
A checkpoint of an agent's folder, carried into a store, and who it was read from there again.

Called by: `kyb checkpoint export`, agents that carry over what one of before has left.
Rule: every byte is compared with its digest while it is read, and the manifest is put last: what is
not whole is not there. Rule: it takes its manifest of format v0 along, as it was signed, so that a
node that fetches it has that very checkpoint again. Rule: done again after an interruption, it
goes on from what is there.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kybernate.artifacts import names
from kybernate.artifacts.facts import WOKEN_FROM, Facts
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import Manifest
from kybernate.artifacts.signing import Trusted
from kybernate.clients.errors import Refused
from kybernate.ladder import reading, writing
from kybernate.ladder.keyring import KeyRing
from kybernate.ladder.plain import Plain
from kybernate.ladder.progress import Course
from kybernate.ladder.publishing import putting_again
from kybernate.ladder.reading import Opened
from kybernate.ladder.writing import There, Writing
from kybernate.model.checkpoint import Flaw, key_of
from kybernate.stores.port import Store


class AnotherThere(Refused):
    """The store has another checkpoint under this name; it stays as it is."""


class Described(Protocol):
    """What is to be sealed, or was: its name and its facts."""

    @property
    def namespace(self) -> str:
        """Of its GpuCheckpoint."""

    @property
    def name(self) -> str:
        """Of its GpuCheckpoint."""

    @property
    def facts(self) -> Facts:
        """What whoever sealed it knew."""


class Named(Protocol):
    """A checkpoint of either format, and the signature it is known by."""

    @property
    def manifest(self) -> Described:
        """What it says."""

    @property
    def signature(self) -> str:
        """As its GpuCheckpoint has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Whom we believe, and who signs what we put."""

    ring: KeyRing
    trusted: Trusted
    signer: Ed25519PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """Its manifest in the store, how many bytes of packs were put for it, and whether all of it was
    there before."""

    manifest: Manifest
    written: int
    was_there: bool = False


def carry(
    one: Plain,
    store: Store,
    ours: Authority,
    course: Course,
    unsound: Collection[str] = (),
) -> Carried:
    """Have it in the store. `unsound`: keys of packs there that nothing is shared with.

    Raises AnotherThere, Unusable (what lies in the folder is not what was sealed), Ended,
    Collected, and what the store raises; what was put stays, for the next time.
    """
    return putting_again(lambda: _carried(one, store, ours, course, unsound))


def _carried(
    one: Plain, store: Store, ours: Authority, course: Course, unsound: Collection[str]
) -> Carried:
    namespace = one.manifest.namespace
    course.expect(one.manifest.size + len(one.content))
    before = there_already(store, one, ours.trusted)
    domain = before.domain if before else domain_of(one.manifest, store, ours.trusted)
    listed = writing.there(store, domain)
    there = {key: size for key, size in listed.items() if key not in unsound}
    if before is not None and is_whole(before, there):
        course.had(one.manifest.size + len(one.content))
        return Carried(manifest=before, written=0, was_there=True)
    key = ours.ring.newest(store, domain)
    known = writing.known(manifests(store, namespace, ours.trusted), key, there)
    with Writing(store, domain, key, course, known, there) as into:
        for file in one.manifest.files:
            into.add(file.path, one.read(file))
        into.carried_from(one.signature, one.content)
        manifest, _ = into.seal(namespace, one.manifest.name, one.manifest.facts, ours.signer)
        return Carried(manifest=manifest, written=into.written)


def domain_of(one: Described, store: Store, trusted: Trusted) -> str:
    """Whose chunks it may share: a gold image's are its own; what was made of a workload that woke
    from a checkpoint of its own namespace is where that one is, so that replicas share with the
    gold image they come from; else its namespace's. Another namespace's images are never written
    to. docs/decisions/0025. Raises Unusable for a name that no domain can have."""
    if one.facts.gold:
        return names.gold_domain(one.namespace, one.name)
    space, name = key_of(one.facts.more.get(WOKEN_FROM, ""), one.namespace)
    if name and space == one.namespace:
        with suppress(Unusable):
            return reading.opened(store, space, name, trusted).manifest.domain
    return one.namespace


def identity(opened: Opened) -> str:
    """The signature it is known by: its own, or that of the checkpoint of v0 it was made of."""
    origin = opened.manifest.origin
    return origin.signature if origin is not None else opened.signature


def same(opened: Opened, signature: str) -> bool:
    """Whether it is the checkpoint of this signature, its own or that of what it was made of."""
    origin = opened.manifest.origin
    return signature == opened.signature or (origin is not None and signature == origin.signature)


def manifests(store: Store, namespace: str, trusted: Trusted) -> Iterator[Manifest]:
    """Those of a namespace that we believe: what others have put there is not ours to build on."""
    for one in list(store.list(f"{names.MANIFESTS}/{namespace}")):
        with suppress(Unusable):
            name = one.key.rsplit("/", 1)[1]
            yield reading.opened(store, namespace, name, trusted).manifest


def there_already(store: Store, one: Named, trusted: Trusted) -> Manifest | None:
    """This checkpoint, as the store has it already. Raises AnotherThere, Unusable."""
    namespace, name = one.manifest.namespace, one.manifest.name
    try:
        opened = reading.opened(store, namespace, name, trusted)
    except Unusable as problem:
        if problem.reason is Flaw.ABSENT:
            return None
        raise AnotherThere(f"{namespace}/{name} is in the store, and {problem}") from problem
    found = opened.manifest
    if same(opened, one.signature):
        return found
    if found.origin is None and found.facts == one.manifest.facts:
        return None  # carried by a version that took no origin along: its chunks are there
    raise AnotherThere(f"{namespace}/{name} is another checkpoint in the store")


def is_whole(manifest: Manifest, there: There) -> bool:
    """Whether its packs are there, as far as their sizes tell."""
    return all(writing.is_there(manifest.domain, pack, there) for pack in manifest.packs)
