"""Whatever a store gives us is hostile: altered, foreign, or made to hurt its reader."""

import os
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from kybernate.artifacts import chunks, keys, names, packs, signing
from kybernate.artifacts import manifest as manifests
from kybernate.artifacts.chunks import DomainKey
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import Chunks, File, Manifest, Zeros
from kybernate.model.checkpoint import Flaw
from kybernate.testing.artifacts import (
    NAME,
    NAMESPACE,
    NONCE,
    WRAPPING,
    Made,
    made,
    opened,
)

MADE = made()


def _refused(objects: dict[str, bytes], made: Made = MADE) -> Flaw:
    with pytest.raises(Unusable) as refused:
        opened(made, objects)
    return refused.value.reason


@pytest.mark.parametrize("key", sorted(MADE.objects))
def test_a_flipped_bit_anywhere_is_noticed(key: str) -> None:
    whole = MADE.objects[key]
    for at in range(len(whole)):
        for bit in range(8):
            altered = bytearray(whole)
            altered[at] ^= 1 << bit
            with pytest.raises(Unusable):
                opened(MADE, {**MADE.objects, key: bytes(altered)})


@pytest.mark.parametrize("key", sorted(MADE.objects))
def test_what_was_cut_short_is_noticed(key: str) -> None:
    whole = MADE.objects[key]
    for end in range(len(whole)):
        with pytest.raises(Unusable):
            opened(MADE, {**MADE.objects, key: whole[:end]})


def _altered(alter: Callable[[dict[str, Any]], object]) -> Flaw:
    """By somebody who may sign."""
    whole = orjson.loads(manifests.encode(MADE.manifest))
    alter(whole)
    with pytest.raises(Unusable) as refused:
        manifests.decode(orjson.dumps(whole))
    return refused.value.reason


def _file(**changed: object) -> Callable[[dict[str, Any]], object]:
    return lambda whole: whole["files"][0].update(changed)


def _top(**changed: object) -> Callable[[dict[str, Any]], object]:
    return lambda whole: whole.update(changed)


HOSTILE = {
    "a path that climbs": (_file(path="../../etc/passwd"), Flaw.BAD_NAME),
    "an absolute path": (_file(path="/etc/passwd"), Flaw.BAD_NAME),
    "an empty path": (_file(path=""), Flaw.BAD_NAME),
    "a path with a zero byte": (_file(path="a\0b"), Flaw.BAD_NAME),
    "a path as long as a book": (_file(path="a/" * 100_000 + "a"), Flaw.BAD_NAME),
    "a file below a file": (_file(path="image/core-1.img/x"), Flaw.MALFORMED),
    "a path named twice": (_file(path="image/empty"), Flaw.MALFORMED),
    "2^63 bytes": (_file(size=2**63), Flaw.TOO_LARGE),
    "2^63 zeros": (_file(size=2**63, content=[[2**63]]), Flaw.TOO_LARGE),
    "2^64 - 1 bytes": (_file(size=2**64 - 1), Flaw.TOO_LARGE),
    "a negative size": (_file(size=-1), Flaw.MALFORMED),
    "a size that is no number": (_file(size="large"), Flaw.MALFORMED),
    "a size that is a fraction": (_file(size=1.5), Flaw.MALFORMED),
    "a size that is true": (_file(size=True), Flaw.MALFORMED),
    "zeros that are negative": (_file(content=[[-(2**62)]]), Flaw.MALFORMED),
    "no zeros": (_file(content=[[0]]), Flaw.MALFORMED),
    "2^63 chunks": (_file(content=[[0, 0, 2**63]]), Flaw.MALFORMED),
    "chunks before the first": (_file(content=[[0, -1, 1]]), Flaw.MALFORMED),
    "a pack before the first": (_file(content=[[-1, 0, 1]]), Flaw.MALFORMED),
    "a pack that is not listed": (_file(content=[[7, 0, 1]]), Flaw.MALFORMED),
    "a chunk that is not listed": (_file(content=[[0, 2, 1]]), Flaw.MALFORMED),
    "no chunks": (_file(content=[[0, 0, 0]]), Flaw.MALFORMED),
    "chunks counted backwards": (_file(content=[[0, 2, -1]]), Flaw.MALFORMED),
    "less than its size": (_file(content=[]), Flaw.MALFORMED),
    "short chunks in the middle": (_file(content=[[0, 0, 1], [0, 0, 1]]), Flaw.MALFORMED),
    "pieces of a strange form": (_file(content=[[0, 0]]), Flaw.MALFORMED),
    "pieces that are a text": (_file(content="all of it"), Flaw.MALFORMED),
    "pieces that are texts": (_file(content=["zero"]), Flaw.MALFORMED),
    "10^7 pieces": (_file(content=[[1]] * 10**7), Flaw.TOO_LARGE),
    "files that are a number": (_top(files=1), Flaw.MALFORMED),
    "10^5 files and one": (_top(files=[{}] * 100_001), Flaw.TOO_LARGE),
    "10^5 packs": (_top(packs=[""] * 100_000), Flaw.TOO_LARGE),
    "a pack's list of half a chunk": (_top(packs=["AAAA"]), Flaw.PACK_ALTERED),
    "a pack's list that is no base64": (_top(packs=["%%%%"]), Flaw.MALFORMED),
    "a pack that is a number": (_top(packs=[3]), Flaw.MALFORMED),
    "a pack that is listed twice": (lambda w: w["packs"].append(w["packs"][0]), Flaw.MALFORMED),
    "a size that is not the sum": (_top(size=3), Flaw.MALFORMED),
    "another tenant's domain": (_top(domain="kube-system"), Flaw.FOREIGN_DOMAIN),
    "a domain that is a path": (_top(domain="gold/../x"), Flaw.FOREIGN_DOMAIN),
    "a key that is a path": (_top(key="../../../../../x"), Flaw.MALFORMED),
    "a namespace that is a path": (_top(namespace="..", domain=".."), Flaw.BAD_NAME),
    "another version": (_top(version=2), Flaw.VERSION),
    "another format": (_top(format="tar"), Flaw.VERSION),
    "a GPU part in no file": (
        lambda w: w["facts"].update(
            parts=[{"name": "a", "card": 0, "size": 1, "digest": "", "path": "nowhere"}]
        ),
        Flaw.MALFORMED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_of_somebody_who_may_sign(name: str) -> None:
    alter, flaw = HOSTILE[name]
    assert _altered(alter) is flaw


def test_ten_million_chunks_are_refused_before_they_are_made() -> None:
    entry = b"\1" * 36
    ten_million = [(entry * 4096).hex()] * 2442  # as long as base64 of them would be, and more
    assert _altered(_top(packs=ten_million)) is Flaw.TOO_LARGE


def test_json_that_is_deep_or_large_is_refused() -> None:
    for content in (b"[" * 10**6, b"{", b"", b"null", b"[]", b"\xff", b"9" * 10**6):
        with pytest.raises(Unusable):
            manifests.decode(content)
    with pytest.raises(Unusable) as refused:
        manifests.decode(b" " * (manifests.MAX_MANIFEST + 1))
    assert refused.value.reason is Flaw.TOO_LARGE


def test_a_chunk_that_repeats_counts_at_full_length() -> None:
    """A bomb: one chunk of 2 MiB, named a million times."""
    body = os.urandom(chunks.CHUNK)
    bomb = File(path="x", size=chunks.CHUNK * 1_000_000, content=(Chunks(0, 0, 1),) * 1_000_000)
    found = made({"x": body}, lambda manifest: replace(manifest, files=(bomb,))).manifest
    assert manifests.decode(manifests.encode(found)).size == chunks.CHUNK * 1_000_000
    larger = replace(bomb, size=2**43 + chunks.CHUNK, content=(Zeros(2**43 + chunks.CHUNK),))
    with pytest.raises(Unusable) as refused:
        manifests.decode(manifests.encode(replace(found, files=(larger,))))
    assert refused.value.reason is Flaw.TOO_LARGE


class TestSignatures:
    def test_by_a_key_that_is_not_trusted(self) -> None:
        foreign = made(signer=Ed25519PrivateKey.generate())
        assert _refused(foreign.objects) is Flaw.FOREIGN_SIGNATURE

    def test_none(self) -> None:
        content = manifests.encode(MADE.manifest)
        for line in (b"kybernate-checkpoint 1 \n", b"kybernate-checkpoint 1 ed25519:0:0\n"):
            assert _refused({**MADE.objects, MADE.key: line + content}) is Flaw.UNSIGNED

    def test_a_version_we_do_not_know(self) -> None:
        blob = b"kybernate-checkpoint 2 x\n{}"
        assert _refused({**MADE.objects, MADE.key: blob}) is Flaw.VERSION

    def test_of_an_older_format(self) -> None:
        """A signature of v0's text is none of v1's."""
        content = manifests.encode(MADE.manifest)
        line = signing.signed(content, MADE.signer).split(b"\n", 1)[0]
        older = b64encode(MADE.signer.sign(b"kybernate checkpoint v0\n" + content))
        forged = line[: -len(older)] + older
        assert _refused({**MADE.objects, MADE.key: forged + b"\n" + content}) is Flaw.FORGED

    def test_under_another_name(self) -> None:
        with pytest.raises(Unusable) as refused:
            manifests.read(MADE.objects[MADE.key], MADE.trusted, NAMESPACE, "another")
        assert refused.value.reason is Flaw.MISPLACED
        manifest, _ = manifests.read(MADE.objects[MADE.key], MADE.trusted, NAMESPACE, NAME)
        assert manifest == MADE.manifest


class TestChunks:
    def test_of_another_domain_do_not_open(self) -> None:
        other = DomainKey(os.urandom(32))
        sealed = memoryview(bytearray(3 + chunks.TAG))
        MADE.domain.seal(MADE.domain.name(b"abc"), b"abc", sealed)
        assert other.name(b"abc") != MADE.domain.name(b"abc")
        with pytest.raises(Unusable):
            other.open(MADE.domain.name(b"abc"), sealed, memoryview(bytearray(3)))

    def test_sealed_by_the_domain_under_a_wrong_name_do_not_open(self) -> None:
        """The tag is right, the name is not: of an agent that lies to others of its domain."""
        name = MADE.domain.name(b"abc")
        sealed = memoryview(bytearray(3 + chunks.TAG))
        MADE.domain.seal(name, b"xyz", sealed)
        with pytest.raises(Unusable) as refused:
            MADE.domain.open(name, sealed, memoryview(bytearray(3)))
        assert refused.value.reason is Flaw.PACK_ALTERED

    @given(st.binary(min_size=1, max_size=4096))
    def test_come_back_as_they_were(self, contents: bytes) -> None:
        name = MADE.domain.name(contents)
        sealed = memoryview(bytearray(len(contents) + chunks.TAG))
        MADE.domain.seal(name, contents, sealed)
        again = memoryview(bytearray(len(contents)))
        MADE.domain.open(name, sealed, again)
        assert bytes(again) == contents

    def test_zeros_are_told_from_what_is_nearly_zero(self) -> None:
        nearly = bytearray(chunks.CHUNK)
        assert chunks.is_zero(nearly)
        nearly[-1] = 1
        assert not chunks.is_zero(nearly)


class TestKeys:
    def test_a_rotated_wrapping_key_opens_and_the_old_one_does_so_until_it_goes(self) -> None:
        record = keys.new_record(NAMESPACE, MADE.domain, WRAPPING, NONCE)
        new = os.urandom(32)
        both = keys.wrapped(record, MADE.domain, new, os.urandom(12))
        only = keys.without(both, keys.wrapping_id(WRAPPING))
        for one, wrapping in ((both, WRAPPING), (both, new), (only, new)):
            ring = {keys.wrapping_id(wrapping): wrapping}
            again = keys.decode(keys.encode(one), NAMESPACE, MADE.domain.id)
            assert keys.unwrap(again, ring).secret == MADE.domain.secret
        with pytest.raises(Unusable) as refused:
            keys.unwrap(only, {keys.wrapping_id(WRAPPING): WRAPPING})
        assert refused.value.reason is Flaw.KEY_ABSENT
        with pytest.raises(ValueError, match="last wrapping key"):
            keys.without(only, keys.wrapping_id(new))

    def test_a_record_of_another_domain_does_not_open(self) -> None:
        """Its wrap is bound to its domain and key, also for whoever may write records."""
        record = keys.new_record("other", MADE.domain, WRAPPING, NONCE)
        moved = keys.encode(replace(record, domain=NAMESPACE))
        key = names.record_key(NAMESPACE, MADE.domain.id)
        assert _refused({**MADE.objects, key: moved}) is Flaw.KEY_ABSENT
        assert _refused({**MADE.objects, key: keys.encode(record)}) is Flaw.MISPLACED

    def test_a_record_that_holds_another_key_is_noticed(self) -> None:
        foreign = DomainKey(os.urandom(32))
        record = keys.KeyRecord(domain=NAMESPACE, key=MADE.domain.id, wrapped=())
        lying = keys.wrapped(record, foreign, WRAPPING, NONCE)
        with pytest.raises(Unusable) as refused:
            keys.unwrap(lying, {keys.wrapping_id(WRAPPING): WRAPPING})
        assert refused.value.reason is Flaw.KEY_ABSENT


class TestReadersOfNoise:
    """Hypothesis; `benchmarks`' fuzz target runs far longer."""

    @settings(max_examples=300)
    @given(st.binary(max_size=400))
    def test_of_packs(self, noise: bytes) -> None:
        for content in (noise, packs.MAGIC + noise + packs.MAGIC):
            with pytest.raises(Unusable):
                packs.listed(content)

    @settings(max_examples=300)
    @given(st.data())
    def test_of_manifests(self, data: st.DataObject) -> None:
        whole = orjson.loads(manifests.encode(MADE.manifest))
        target: Any = whole
        for _ in range(data.draw(st.integers(0, 4))):
            if isinstance(target, dict) and target:
                target = target[data.draw(st.sampled_from(sorted(target)))]
            elif isinstance(target, list) and target:
                target = target[data.draw(st.integers(0, len(target) - 1))]
        odd = data.draw(
            st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=9),
                      st.integers(-(2**63), 2**64 - 1), st.lists(st.integers(-3, 3), max_size=4))
        )  # fmt: skip
        if isinstance(target, dict) and target:
            target[data.draw(st.sampled_from(sorted(target)))] = odd
        elif isinstance(target, list):
            target.append(odd)
        _read_or_refused(orjson.dumps(whole))


def _read_or_refused(content: bytes) -> Manifest | None:
    try:
        return manifests.decode(content)
    except Unusable:
        return None
