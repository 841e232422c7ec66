"""Every way a checkpoint can be wrong has its own constant reason, found before it is used.

Real: files, signatures. A test spoils a checkpoint that was good (hostile manifests of who may
sign: tests/artifacts; of format v0: `test_the_format_stays_readable.py`).
"""

import shutil
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Fingerprint, Flaw
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
MANIFEST = f"manifests/{NAMESPACE}/{NAME}"


def refused(store: Store, here: Fingerprint | None = None, signature: str = "") -> Flaw:
    with pytest.raises(Unusable) as caught:
        store.open(NAMESPACE, NAME, here, signature)
    return caught.value.reason


def _pack(node: Path) -> Path:
    [found] = (path for path in node.glob("domains/*/packs/*/*") if path.is_file())
    return found


def _altered(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0x10
    path.write_bytes(content)


def _behind_a_link(path: Path, aside: Path) -> None:
    shutil.move(path, aside)
    path.symlink_to(aside)


SPOILED: dict[str, tuple[Callable[[Path, Path], object], Flaw]] = {
    "bit-flipped": (lambda n, _: _altered(_pack(n), 0.5), Flaw.PACK_ALTERED),
    "bit-flipped-in-the-list": (lambda n, _: _altered(_pack(n), 0.9999), Flaw.PACK_ALTERED),
    "truncated": (lambda n, _: _pack(n).write_bytes(_pack(n).read_bytes()[:1000]),
                  Flaw.PACK_ALTERED),
    "longer": (lambda n, _: _pack(n).write_bytes(_pack(n).read_bytes() + b"x"), Flaw.PACK_ALTERED),
    "a-pack-less": (lambda n, _: _pack(n).unlink(), Flaw.PACK_MISSING),
    "a-link-for-a-pack": (lambda n, t: _behind_a_link(_pack(n), t / "x"), Flaw.PACK_MISSING),
    "key-gone": (lambda n, _: shutil.rmtree(n / f"domains/{NAMESPACE}/keys"), Flaw.KEY_ABSENT),
    "manifest-gone": (lambda n, _: (n / MANIFEST).unlink(), Flaw.ABSENT),
    "manifest-empty": (lambda n, _: (n / MANIFEST).write_bytes(b""), Flaw.MALFORMED),
    "manifest-of-another-day": (
        lambda n, _: (n / MANIFEST).write_bytes(
            (n / MANIFEST).read_bytes().replace(b"-checkpoint 1", b"-checkpoint 9")
        ),
        Flaw.VERSION,
    ),
    "signature-of-nothing": (
        lambda n, _: (n / MANIFEST).write_bytes(
            b"kybernate-checkpoint 1 trust-me\n"
            + (n / MANIFEST).read_bytes().partition(b"\n")[2]
        ),
        Flaw.UNSIGNED,
    ),
    "a-changed-manifest": (
        lambda n, _: (n / MANIFEST).write_bytes(
            (n / MANIFEST).read_bytes().replace(b"serve.py", b"other.py")
        ),
        Flaw.FORGED,
    ),
    "manifest-behind-a-link": (lambda n, t: _behind_a_link(n / MANIFEST, t / "m"), Flaw.ABSENT),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_what_was_spoiled_on_the_disk_is_refused(
    store: Store, seal: Callable[..., Sealed], tmp_path: Path, case: str
) -> None:
    spoil, expected = SPOILED[case]
    seal(store)
    aside = tmp_path / "aside"
    aside.mkdir()
    store.open(NAMESPACE, NAME)
    spoil(tmp_path / "node-a", aside)
    assert refused(store) is expected


def test_a_flipped_bit_is_found_before_a_byte_of_its_chunk_is_given_out(
    store: Store, seal: Callable[..., Sealed], tmp_path: Path
) -> None:
    seal(store)
    sealed = store.believed(NAMESPACE, NAME)
    _altered(_pack(tmp_path / "node-a"), 0.5)
    (tmp_path / "out").mkdir()
    with pytest.raises(Unusable) as caught:
        sealed.take_out("image", tmp_path / "out")
    assert caught.value.reason is Flaw.PACK_ALTERED


def test_a_signature_of_a_stranger_is_foreign(
    new_store: Callable[..., Store], seal: Callable[..., Sealed], tmp_path: Path
) -> None:
    seal(new_store(keys=Keys.own(tmp_path / "strangers-keys")))
    store = new_store()
    assert refused(store) is Flaw.FOREIGN_SIGNATURE
    assert store.room().used > 1_000_000  # nothing of it goes: its key may be trusted again


def test_one_key_cannot_borrow_the_name_of_another(
    store: Store, seal: Callable[..., Sealed], tmp_path: Path
) -> None:
    sealed = seal(store)
    ours = sealed.signature.split(":")[1]
    content = sealed.opened.blob.partition(b"\n")[2]
    theirs = Keys.own(tmp_path / "theirs").sign(content).split(":")[2]
    line = f"kybernate-checkpoint 1 ed25519:{ours}:{theirs}\n".encode()
    (tmp_path / "node-a" / MANIFEST).write_bytes(line + content)
    assert refused(store) is Flaw.FORGED


def test_a_good_checkpoint_under_another_name_is_misplaced(
    store: Store, seal: Callable[..., Sealed], tmp_path: Path
) -> None:
    seal(store, "another")
    folder = tmp_path / "node-a/manifests" / NAMESPACE
    (folder / "another").rename(folder / NAME)
    assert refused(store) is Flaw.MISPLACED


def test_a_good_checkpoint_that_is_not_the_published_one_is_refused(
    new_store: Callable[..., Store], seal: Callable[..., Sealed]
) -> None:
    published = seal(new_store("node-b"), sealed_at=2.0).signature
    store = new_store()
    seal(store, sealed_at=1.0)
    assert refused(store, signature=published) is Flaw.NOT_PUBLISHED


def test_a_wrapping_key_that_is_another_opens_nothing(
    new_store: Callable[..., Store], seal: Callable[..., Sealed], tmp_path: Path
) -> None:
    seal(new_store())
    Keys.own(tmp_path / "others")
    store = new_store(keys=Keys(tmp_path / "keys", tmp_path / "others"))
    assert refused(store) is Flaw.KEY_ABSENT
    assert store.believed(NAMESPACE, NAME)  # nothing of it goes: the key may come back
    assert new_store().open(NAMESPACE, NAME)


def test_keys_here_are_wrapped_anew_when_an_agent_starts_with_another_wrapping_key(
    new_store: Callable[..., Store], seal: Callable[..., Sealed], wrapping: Path, keys: Keys
) -> None:
    seal(new_store())
    old = (wrapping / "wrapping.key").read_text()
    (wrapping / "wrapping.key").write_text(b64encode(b"another one".ljust(32)).decode())
    (wrapping / "before.key").write_text(old)
    new_store()
    (wrapping / "before.key").unlink()
    assert new_store().open(NAMESPACE, NAME)


@pytest.mark.parametrize("key", [("..", NAME), (NAMESPACE, ".."), ("a/b", NAME), (NAMESPACE, "")])
def test_names_that_are_no_names_are_never_looked_up(store: Store, key: tuple[str, str]) -> None:
    for call in (store.open, store.peek, store.draft, store.delete):
        with pytest.raises(Unusable) as caught:
            call(*key)
        assert caught.value.reason is Flaw.BAD_NAME


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"kernel": "6.12.3"}, Flaw.OTHER_KERNEL, id="kernel"),
        pytest.param({"architecture": "aarch64"}, Flaw.OTHER_ARCHITECTURE, id="architecture"),
        pytest.param({"image": "sha256:bb"}, Flaw.OTHER_IMAGE, id="image"),
        pytest.param({"image": ""}, Flaw.OTHER_IMAGE, id="image-that-is-not-known"),
        pytest.param({"command": ("sh",)}, Flaw.OTHER_COMMAND, id="command"),
        pytest.param({"mechanism": "guest"}, Flaw.OTHER_MECHANISM, id="mechanism"),
        pytest.param({"product": "H200"}, Flaw.OTHER_GPU, id="gpu"),
        pytest.param({"driver": "590.1"}, Flaw.OTHER_DRIVER, id="driver"),
        pytest.param({"cpu": frozenset({"avx"})}, Flaw.OTHER_CPU, id="cpu-with-less"),
    ],
)
def test_it_wakes_only_where_what_it_was_made_in_is_found(
    store: Store, seal: Callable[..., Sealed], here: Fingerprint, change: Any, expected: Flaw
) -> None:
    seal(store)
    assert refused(store, replace(here, **change)) is expected


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"kernel": "6.1.0-22-amd64"}, id="a-kernel-of-the-same-series"),
        pytest.param({"cpu": frozenset({"avx", "avx2", "amx"})}, id="a-cpu-with-more"),
        pytest.param({"boot": "b2"}, id="another-boot"),
    ],
)
def test_what_makes_no_difference_is_let_through(
    store: Store, seal: Callable[..., Sealed], here: Fingerprint, change: Any
) -> None:
    seal(store)
    store.open(NAMESPACE, NAME, replace(here, **change))


def test_what_cannot_outlive_a_boot_does_not(
    store: Store, seal: Callable[..., Sealed], here: Fingerprint
) -> None:
    seal(store, boot_bound=True)
    store.open(NAMESPACE, NAME, here)
    assert refused(store, replace(here, boot="b2")) is Flaw.OTHER_BOOT


def test_a_signature_is_good_for_checkpoints_only(keys: Keys) -> None:
    """The key may one day sign something else: what it signs says what it is."""
    signed = keys.sign(b"content")
    with pytest.raises(Unusable):
        keys.check(b"kybernate checkpoint v0\ncontent", signed)
    with pytest.raises(Unusable):
        keys.check(b"content", signed.replace(signed[-10:], b64encode(b"x" * 7).decode()))
