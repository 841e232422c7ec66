"""Every way a checkpoint can be wrong has its own constant reason, found before it is used.

Real: files, signatures. A test spoils a checkpoint that was good, or signs one that never was.
"""

import os
import shutil
import socket
import stat
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from kybernate.artifacts import v0 as manifests
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.v0 import File, Manifest
from kybernate.model.checkpoint import Fingerprint, Flaw
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
PAGES = "image/pages-1.img"


def refused(store: Store, here: Fingerprint | None = None, signature: str = "") -> Flaw:
    with pytest.raises(Unusable) as caught:
        store.open(NAMESPACE, NAME, here, signature)
    return caught.value.reason


def _truncate(folder: Path) -> None:
    with (folder / PAGES).open("r+b") as file:
        file.truncate(1000)


def _flip(folder: Path) -> None:
    content = bytearray((folder / PAGES).read_bytes())
    content[len(content) // 2] ^= 0x10
    (folder / PAGES).write_bytes(content)


def _as_link(folder: Path, target: Path) -> None:
    """The very contents, behind a link."""
    shutil.move(folder / PAGES, target)
    (folder / PAGES).symlink_to(target)


def _as_linked_folder(folder: Path, target: Path) -> None:
    shutil.move(folder / "image", target)
    (folder / "image").symlink_to(target, target_is_directory=True)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device node needs root")


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's whole path may be too long for one
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


SPOILED: dict[str, tuple[Callable[[Path, Path], object], Flaw]] = {
    "truncated": (lambda f, _: _truncate(f), Flaw.FILE_SIZE),
    "bit-flipped": (lambda f, _: _flip(f), Flaw.FILE_ALTERED),
    "a-file-more": (lambda f, _: (f / "image/more.img").write_bytes(b""), Flaw.FILE_EXTRA),
    "a-folder-more": (lambda f, _: (f / "more").mkdir(), Flaw.FILE_EXTRA),
    "a-file-less": (lambda f, _: (f / "gpu/0").unlink(), Flaw.FILE_MISSING),
    "a-link-for-a-file": (lambda f, t: _as_link(f, t / "pages"), Flaw.LINK),
    "a-link-for-a-folder": (lambda f, t: _as_linked_folder(f, t / "image"), Flaw.LINK),
    "a-dangling-link": (lambda f, _: (f / "x").symlink_to("/nowhere"), Flaw.LINK),
    "a-device-node": (lambda f, _: _device(f / "null"), Flaw.SPECIAL_FILE),
    "a-pipe": (lambda f, _: os.mkfifo(f / "pipe"), Flaw.SPECIAL_FILE),
    "a-socket": (lambda f, _: _socket(f / "socket"), Flaw.SPECIAL_FILE),
    "a-name-of-control-characters": (
        lambda f, _: (f / "a\nb").write_bytes(b""),
        Flaw.BAD_NAME,
    ),
    "manifest-gone": (lambda f, _: (f.parent / "manifest.json").unlink(), Flaw.MALFORMED),
    "signature-gone": (lambda f, _: (f.parent / "manifest.sig").unlink(), Flaw.UNSIGNED),
    "signature-of-nothing": (
        lambda f, _: (f.parent / "manifest.sig").write_text("trust me"),
        Flaw.UNSIGNED,
    ),
    "files-gone": (lambda f, _: shutil.rmtree(f), Flaw.FILE_MISSING),
    "something-beside-it": (lambda f, _: (f.parent / "x").write_bytes(b""), Flaw.FILE_EXTRA),
    "manifest-behind-a-link": (
        lambda f, t: (
            shutil.move(f.parent / "manifest.json", t / "m"),
            (f.parent / "manifest.json").symlink_to(t / "m"),
        ),
        Flaw.LINK,
    ),
    "a-link-in-its-place": (
        lambda f, t: (shutil.move(f.parent, t / "all"), f.parent.symlink_to(t / "all")),
        Flaw.LINK,
    ),
    "nothing-there": (lambda f, _: shutil.rmtree(f.parent), Flaw.ABSENT),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_was_spoiled_on_the_disk_is_refused(
    store: Store, seal: Callable[..., Sealed], tmp_path: Path, case: str
) -> None:
    spoil, expected = SPOILED[case]
    sealed, aside = seal(store), tmp_path / "aside"
    aside.mkdir()
    store.open(NAMESPACE, NAME)
    spoil(sealed.folder, aside)
    assert refused(store) is expected


def test_a_changed_manifest_is_forged(store: Store, seal: Callable[..., Sealed]) -> None:
    path = seal(store).folder.parent / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"serve.py", b"other.py"))
    assert refused(store) is Flaw.FORGED


def test_a_signature_of_a_stranger_is_foreign(
    new_store: Callable[..., Store], seal: Callable[..., Sealed], tmp_path: Path
) -> None:
    seal(new_store(keys=Keys.own(tmp_path / "strangers-keys")))
    assert refused(new_store()) is Flaw.FOREIGN_SIGNATURE


def test_one_key_cannot_borrow_the_name_of_another(
    store: Store, seal: Callable[..., Sealed], tmp_path: Path
) -> None:
    sealed = seal(store)
    ours = sealed.signature.split(":")[1]
    theirs = Keys.own(tmp_path / "theirs").sign(sealed.content).split(":")
    (sealed.folder.parent / "manifest.sig").write_text(f"ed25519:{ours}:{theirs[2]}")
    assert refused(store) is Flaw.FORGED


def test_a_good_checkpoint_under_another_name_is_misplaced(
    store: Store, seal: Callable[..., Sealed]
) -> None:
    seal(store, "another").folder.parent.rename(store.folder(NAMESPACE, NAME).parent)
    assert refused(store) is Flaw.MISPLACED


def test_a_good_checkpoint_that_is_not_the_published_one_is_refused(
    new_store: Callable[..., Store], seal: Callable[..., Sealed]
) -> None:
    published = seal(new_store("node-b"), sealed_at=2.0).signature
    store = new_store()
    seal(store, sealed_at=1.0)
    assert refused(store, signature=published) is Flaw.NOT_PUBLISHED


def _write(store: Store, keys: Keys, content: bytes) -> None:
    """A checkpoint with this manifest, signed by us, whatever it says."""
    root = store.folder(NAMESPACE, NAME).parent
    shutil.rmtree(root, ignore_errors=True)
    (root / "files").mkdir(parents=True)
    (root / "manifest.json").write_bytes(content)
    (root / "manifest.sig").write_text(keys.sign(content))


def _manifest(facts: Any, *paths: str) -> Manifest:
    digest = sha256(b"").hexdigest()
    files = tuple(File(path=path, size=0, sha256=digest) for path in paths)
    return Manifest(namespace=NAMESPACE, name=NAME, facts=replace(facts(), parts=()), files=files)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("../outside", id="up"),
        pytest.param("a/../../outside", id="up-from-below"),
        pytest.param("/etc/outside", id="absolute"),
        pytest.param("a//b", id="empty-part"),
        pytest.param("./a", id="here"),
        pytest.param("", id="empty"),
        pytest.param("a\\b", id="backslash"),
        pytest.param("a\x00b", id="nul"),
        pytest.param("a b", id="space"),
        pytest.param("ä", id="beyond-ascii"),
        pytest.param("x" * 256, id="long-part"),
        pytest.param("/".join("a" * 9), id="deep"),
    ],
)
def test_a_signed_manifest_names_no_path_that_could_lead_outside(
    store: Store, keys: Keys, facts: Any, path: str
) -> None:
    _write(store, keys, manifests.encode(_manifest(facts, path)))
    assert refused(store) is Flaw.BAD_NAME


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        pytest.param(("a", "a"), Flaw.MALFORMED, id="one-file-twice"),
        pytest.param(("a", "a/b"), Flaw.MALFORMED, id="a-file-that-is-a-folder"),
    ],
)
def test_a_signed_manifest_does_not_contradict_itself(
    store: Store, keys: Keys, facts: Any, paths: tuple[str, ...], expected: Flaw
) -> None:
    _write(store, keys, manifests.encode(_manifest(facts, *paths)))
    assert refused(store) is expected


def _changed(facts: Any, changes: dict[str, Any]) -> bytes:
    whole = orjson.loads(manifests.encode(_manifest(facts, "a")))
    return orjson.dumps(whole | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"version": 1}, Flaw.VERSION, id="of-the-future"),
        pytest.param({"format": "tar"}, Flaw.VERSION, id="of-another-format"),
        pytest.param({"size": 1}, Flaw.MALFORMED, id="wrong-sum"),
        pytest.param({"files": "a"}, Flaw.MALFORMED, id="no-list"),
        pytest.param({"files": [{"path": "a"}]}, Flaw.MALFORMED, id="no-size"),
        pytest.param(
            {"files": [{"path": "a", "size": -1, "sha256": "0" * 64}]},
            Flaw.MALFORMED,
            id="negative",
        ),
        pytest.param(
            {"files": [{"path": "a", "size": 0, "sha256": "zz"}]}, Flaw.MALFORMED, id="no-digest"
        ),
        pytest.param({"facts": None}, Flaw.MALFORMED, id="no-facts"),
        pytest.param({"namespace": "../../etc"}, Flaw.BAD_NAME, id="a-path-for-a-namespace"),
        pytest.param({"name": "Upper"}, Flaw.BAD_NAME, id="a-name-kubernetes-has-not"),
    ],
)
def test_a_signed_manifest_that_cannot_be_read_is_refused(
    store: Store, keys: Keys, facts: Any, changes: dict[str, Any], expected: Flaw
) -> None:
    _write(store, keys, _changed(facts, changes))
    assert refused(store) is expected


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 5000])
def test_signed_bytes_that_are_no_manifest_are_refused(
    store: Store, keys: Keys, content: bytes
) -> None:
    _write(store, keys, content)
    assert refused(store) is Flaw.MALFORMED


def test_gpu_contents_that_are_in_no_file_are_refused(store: Store, keys: Keys, facts: Any) -> None:
    manifest = _manifest(facts, "a")
    _write(store, keys, manifests.encode(replace(manifest, facts=facts())))
    assert refused(store) is Flaw.MALFORMED


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
