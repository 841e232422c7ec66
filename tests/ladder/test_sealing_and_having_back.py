"""Files into a store and back: what comes back is what went in, or nothing does."""

import os
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kybernate.artifacts import signing
from kybernate.artifacts.chunks import CHUNK
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import Manifest
from kybernate.ladder import copying, reading, spans, writing
from kybernate.ladder.keyring import KeyRing
from kybernate.ladder.progress import Course, Ended, Progress
from kybernate.ladder.writing import Writing
from kybernate.model.checkpoint import Flaw
from kybernate.runtime.clock import SystemClock
from kybernate.stores.errors import Away, NoRoom
from kybernate.stores.nvme import Nvme
from kybernate.stores.port import Store
from kybernate.stores.ram import Ram
from kybernate.testing.artifacts import FACTS

SIGNER = Ed25519PrivateKey.generate()
TRUSTED = {signing.key_id(SIGNER.public_key()): SIGNER.public_key()}
RING = KeyRing(os.urandom(32))
GIB = 2**30


def _course(**more: object) -> Course:
    return Course(SystemClock(), **more)  # type: ignore[arg-type]


def _ram() -> Ram:
    return Ram(GIB, SystemClock().now)


def _files(folder: Path, **bodies: bytes) -> Path:
    for name, body in bodies.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


def _seal(
    store: Store, folder: Path, name: str = "one", known: writing.Known | None = None,
    course: Course | None = None,
) -> tuple[Manifest, int]:  # fmt: skip
    key = RING.newest(store, "default")
    with Writing(store, "default", key, course or _course(), known) as out:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            out.take(str(path.relative_to(folder)), path)
        manifest, _ = out.seal("default", name, FACTS, SIGNER)
        return manifest, out.written


def _back(store: Store, into: Path, name: str = "one") -> dict[str, bytes]:
    found = reading.opened(store, "default", name, TRUSTED).manifest
    key = RING.open(store, found.domain, found.key)
    into.mkdir()
    reading.extract(store, found, key, into, _course())
    return {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}


@pytest.fixture(params=["ram", "nvme"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return _ram() if request.param == "ram" else Nvme(tmp_path / "store")


BIG = os.urandom(20 * CHUNK + 77)


def test_what_went_in_comes_back(store: Store, tmp_path: Path) -> None:
    bodies = {
        "gpu__0": BIG[: 20 * CHUNK] + bytes(6 * CHUNK) + BIG[:CHUNK],
        "gpu__1": bytes(3 * CHUNK + 5),
        "image__empty": b"",
        "image__small": b"small",
        "again": BIG,
    }
    source = _files(tmp_path / "in", **bodies)
    manifest, written = _seal(store, source)
    assert _back(store, tmp_path / "out") == {k.replace("__", "/"): v for k, v in bodies.items()}
    assert manifest.size == sum(map(len, bodies.values()))
    assert len(BIG) < written < len(BIG) + 2**16  # zeros and repeats cost nothing
    for file in manifest.files:
        key = RING.open(store, manifest.domain, manifest.key)
        parts = reading.stream(store, manifest, key, file)
        assert b"".join(parts) == bodies[file.path.replace("/", "__")]


def test_a_second_one_costs_its_difference(store: Store, tmp_path: Path) -> None:
    source = _files(tmp_path / "in", weights=BIG)
    first, _ = _seal(store, source)
    changed = bytearray(BIG)
    changed[5 * CHUNK + 7] ^= 1
    (source / "weights").write_bytes(changed)
    key = RING.newest(store, "default")
    second, written = _seal(store, source, "two", writing.known([first], key))
    assert CHUNK < written < CHUNK + 1024
    assert _back(store, tmp_path / "a", "one") == {"weights": BIG}
    assert _back(store, tmp_path / "b", "two") == {"weights": bytes(changed)}
    assert set(first.pack_keys) < set(second.pack_keys)


def test_two_who_seal_the_same_write_the_same(tmp_path: Path) -> None:
    source = _files(tmp_path / "in", weights=BIG)
    store = _ram()
    RING.newest(store, "default")
    found: list[Manifest] = []
    threads = [
        threading.Thread(target=lambda n=name: found.append(_seal(store, source, n)[0]))
        for name in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0].pack_keys == found[1].pack_keys
    assert _back(store, tmp_path / "out", "two") == {"weights": BIG}


@pytest.mark.parametrize("what", ["bit", "short", "gone", "swapped"])
def test_a_damaged_pack_is_never_given_out(tmp_path: Path, what: str) -> None:
    store = _ram()
    manifest, _ = _seal(store, _files(tmp_path / "in", weights=BIG))
    first, second = manifest.pack_keys
    content = bytearray(store.get(first))
    content[len(content) // 2] ^= 4
    if what == "bit":
        store.put(first, content)
    elif what == "short":
        store.put(first, bytes(store.get(first))[:1000])
    elif what == "gone":
        store.delete(first)
    else:
        store.put(first, store.get(second))
    with pytest.raises(Unusable) as refused:
        _back(store, tmp_path / "out")
    assert refused.value.reason in (Flaw.PACK_ALTERED, Flaw.PACK_MISSING)
    key = RING.open(store, "default", manifest.key)
    with pytest.raises(Unusable):
        copying.copy_packs(store, _ram(), manifest, key, _course())


def test_a_full_store_keeps_no_half_checkpoint(tmp_path: Path) -> None:
    store = Ram(34 * 2**20, SystemClock().now)
    with pytest.raises(NoRoom):
        _seal(store, _files(tmp_path / "in", weights=BIG))
    assert not list(store.list("manifests"))


def test_called_off_it_ends_and_done_again_it_moves_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "AT_ONCE", 1)
    source, target = _ram(), _ram()
    manifest, _ = _seal(source, _files(tmp_path / "in", weights=BIG))
    ended, told = threading.Event(), []

    def stop(progress: Progress) -> None:
        told.append(progress)
        ended.set()

    key = RING.open(source, "default", manifest.key)
    with pytest.raises(Ended):
        copying.copy_packs(source, target, manifest, key, _course(told=stop, ended=ended))
    assert told[0].total == manifest.packed
    left = copying.copy_packs(source, target, manifest, key, _course())
    assert 0 < left < manifest.packed
    assert copying.copy_packs(source, target, manifest, key, _course()) == 0


def test_progress_is_told_in_bytes_and_seconds(tmp_path: Path) -> None:
    told: list[Progress] = []
    _seal(_ram(), _files(tmp_path / "in", weights=BIG), course=_course(told=told.append))
    assert told[-1].done == len(BIG)
    assert Progress(total=100, done=25, seconds=5.0).seconds_left == 15.0
    assert Progress(total=100, done=0, seconds=0.0).seconds_left is None


class Cutting(Ram):
    """Dies (for us) at its n-th change, as a process does that is killed."""

    def __init__(self, left: int) -> None:
        super().__init__(GIB, SystemClock().now)
        self.left = left

    def put(self, key: str, content: bytes | bytearray | memoryview) -> None:
        if self.left <= 0:
            raise Away("killed")
        self.left -= 1
        super().put(key, content)


@pytest.mark.parametrize("after", range(5))
def test_killed_at_any_step_it_is_there_whole_or_not(tmp_path: Path, after: int) -> None:
    """Steps: the key record, two packs, the manifest."""
    store = Cutting(after)
    source = _files(tmp_path / "in", weights=BIG)
    try:
        _seal(store, source)
    except Away:
        assert not list(store.list("manifests"))
        store.left = 99
        _seal(store, source)
    assert _back(store, tmp_path / "out") == {"weights": BIG}


def test_rotated_wrapping_keys_open_and_old_ones_open_no_more(tmp_path: Path) -> None:
    store = _ram()
    manifest, _ = _seal(store, _files(tmp_path / "in", weights=b"x"))
    old = KeyRing(os.urandom(32))
    new_secret = os.urandom(32)
    rotated = KeyRing(new_secret, [RING._current])
    assert rotated.rewrap(store) == 1
    assert rotated.rewrap(store) == 0
    KeyRing(new_secret).open(store, "default", manifest.key)
    for ring in (RING, old):
        with pytest.raises(Unusable) as refused:
            ring.open(store, "default", manifest.key)
        assert refused.value.reason is Flaw.KEY_ABSENT


def test_a_replayed_older_manifest_is_told_by_its_signature(tmp_path: Path) -> None:
    """What its GpuCheckpoint names is compared; the format cannot know which was the last."""
    store = _ram()
    source = _files(tmp_path / "in", weights=b"older")
    _seal(store, source)
    older = reading.opened(store, "default", "one", TRUSTED)
    (source / "weights").write_bytes(b"newer")
    _seal(store, source)
    newer = reading.opened(store, "default", "one", TRUSTED)
    assert older.signature != newer.signature
    with pytest.raises(Unusable) as refused:
        reading.opened(store, "default", "one", TRUSTED, published=older.signature)
    assert refused.value.reason is Flaw.NOT_PUBLISHED


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_files_of_every_length(tmp_path: Path, size: int) -> None:
    store = _ram()
    body = os.urandom(size)
    _seal(store, _files(tmp_path / "in", a=body, b=bytes(size)))
    assert _back(store, tmp_path / "out") == {"a": body, "b": bytes(size)}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with (
        Writing(_ram(), "default", RING.newest(_ram(), "default"), _course()) as out,
        pytest.raises(OSError, match="symbolic"),
    ):
        out.take("link", tmp_path / "link")


def test_a_buffer_has_room_for_the_blocks_at_both_ends_of_the_longest_span() -> None:
    block = 4096
    first, last = block - 1, block - 1 + spans.MOST  # the worst: both ends are in others' blocks
    blocks = -(-last // block) - first // block
    assert blocks * block <= spans.ROOM
    assert spans.ROOM % block == 0
