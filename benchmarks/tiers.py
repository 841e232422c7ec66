"""
What a sealed checkpoint costs on its way to a disk and a bucket and back, beside bounds measured in
the same run; and what is stored once.

    .venv/bin/python -m benchmarks.tiers [--size 4Gi] [--folder DIR] [--rounds 3]

Bounds: for the disk the smaller of a raw writer (fio where it is installed, else the same requests
without our code: 4 MiB, eight at once, O_DIRECT, preallocated, synced; from pages of 4 KiB, as
fio's) and cores x the rate at which one core names and seals; `_of_huge` is of the raw requests
from huge pages, as ours are; for the bucket obstore alone, with the same objects, as many at
once, the object server on cores of its own. Ratios are of rates, but for
`second_snapshot_bytes`, `second_scattered_bytes` (moved for it, of the first), `gold_10_bytes` (a
gold image and ten replicas that diverged by 5 %, of the image) and `bf16_left`, which are of bytes;
`demote_of_bound` and `promote_of_bound` are of contents of a parked workload, from the pool of a
real GPU; `wake_of_slowest_stage`, of seconds; `seal_memory` and `wake_memory`, of 512 MiB. Rates by
size justify the sizes of chunks and packs.
"""

import argparse
import mmap
import os
import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import obstore
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from obstore.store import S3Store

from benchmarks.harness import lowered as moved
from benchmarks.harness import pressed as harness_pressed
from benchmarks.harness import rawdisk, report
from kybernate.api.quantity import parse_bytes
from kybernate.artifacts import chunks
from kybernate.artifacts.chunks import CHUNK, DomainKey
from kybernate.artifacts.manifest import Manifest
from kybernate.artifacts.packs import FULL
from kybernate.ladder import reading, writing
from kybernate.ladder.keyring import KeyRing
from kybernate.ladder.progress import Course
from kybernate.ladder.writing import Writing
from kybernate.runtime.clock import SystemClock
from kybernate.stores import pages
from kybernate.stores.bucket import Access, Bucket
from kybernate.stores.nvme import Nvme
from kybernate.stores.port import Store
from kybernate.testing.artifacts import FACTS
from testbed.objectserver import KEY_ID, SECRET, ObjectServer

T = TypeVar("T")
_AT_ONCE = 4  # objects
_STAGES = ("fetch", "open", "put")
_FILLER = memoryview(bytes(CHUNK))
_CHANGED = 0.05
_SIGNER = Ed25519PrivateKey.generate()
_SIZES = (2**18, 2**20, 2**21, 2**23)
_OBJECTS = (2**20, 2**23, 2**25, 2**26)


def main() -> None:
    """Measure, print."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix="kyb-tiers-") as folder:
        bench = Bench(Path(folder), asked.size)
        core = rawdisk.core_rate(CHUNK)
        cores = len(os.sched_getaffinity(0))
        disk = _best([bench.disk() for _ in range(asked.rounds)])
        bound = {name: min(rate, cores * core) for name, rate in disk.items() if "raw" in name}
        objects = bench.objects(asked.rounds)
        kept = bench.kept()
        woken = bench.wake(asked.rounds)
        memory = bench.memory()
        lowered = moved.seconds(Path(folder) / "lowered", asked.size // 4, asked.rounds)
    pressed = harness_pressed.measured()
    rows = [[name, f"{rate / 1e9:.2f}"] for name, rate in (disk | objects).items()]
    rows += [["one core, name and seal", f"{core / 1e9:.2f}"]]
    report.table(f"{asked.size / 2**30:.2f} GiB, best of {asked.rounds}", ["", "GB/s"], rows)
    sizes = [[f"{size >> 10} KiB", f"{rawdisk.core_rate(size) / 1e9:.2f}"] for size in _SIZES]
    report.table("one core, by the size of a chunk", ["chunk", "GB/s"], sizes)
    ways = [
        [one.name, f"{one.left:.3f}", f"{one.press / 1e9:.2f}", f"{one.back / 1e9:.2f}"]
        for one in pressed
    ]
    report.table("bf16 weights, one core", ["", "left", "press GB/s", "back GB/s"], ways)
    stages = [[name, f"{seconds:.3f}"] for name, seconds in woken.items()]
    report.table("wake from the disk", ["stage alone, then all", "seconds"], stages)
    rows = [[name, f"{seconds:.3f}"] for name, seconds in lowered.items()]
    report.table(f"{asked.size / 2**32:.2f} GiB parked, to NVMe and back", ["", "seconds"], rows)
    smallest = min(pressed, key=lambda one: one.left)
    ratios = {
        "nvme_write_of_bound": disk["seal"] / bound["raw write"],
        "nvme_read_of_bound": disk["open"] / bound["raw read"],
        "nvme_write_of_huge": disk["seal"] / bound["raw write, huge pages"],
        "nvme_read_of_huge": disk["open"] / bound["raw read, huge pages"],
        "object_put_of_obstore": objects["put"] / objects["obstore put"],
        "object_get_of_obstore": objects["get"] / objects["obstore get"],
        "wake_of_slowest_stage": woken["wake"] / max(woken[name] for name in _STAGES),
        **kept,
        **memory,
        **_of_bound(lowered, bound, asked.size // 4),
        "bf16_left": smallest.left,
        "bf16_press_of_seal": smallest.press / core,
        "bf16_back_of_seal": smallest.back / core,
    }
    report.table("", ["", "ratio"], [[name, f"{value:.3f}"] for name, value in ratios.items()])
    rates = {name: rate / 1e9 for name, rate in (disk | objects).items()}
    report.last_line(
        "tiers", ratios, {}, size=asked.size, gigabytes_per_second=rates, raw_by=rawdisk.raw_name()
    )


def _of_bound(lowered: dict[str, float], bound: dict[str, float], size: int) -> dict[str, float]:
    """Rates of what was parked, of the bounds: a demotion is a write and a read."""
    write, read = (size / bound[f"raw {way}, huge pages"] for way in ("write", "read"))
    return {
        "demote_of_bound": (write + read) / lowered["demote"],
        "promote_of_bound": read / lowered["promote"],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--size", type=parse_bytes, default=parse_bytes("4Gi"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=None, help="on the disk to measure")
    return parser.parse_args()


class Contents:
    """Chunks that are all different and cannot be compressed, made as fast as memory is read."""

    def __init__(self, size: int) -> None:
        self._noise = os.urandom(2 * CHUNK)
        self.count = size // CHUNK
        self.changed: dict[int, int] = {}  # by number of the chunk: which version it is

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self.count):
            at = number * 4096 % CHUNK
            head = number.to_bytes(8, "little") + self.changed.get(number, 0).to_bytes(8, "little")
            yield head + self._noise[at : at + CHUNK - len(head)]

    def change(self, version: int, *, clustered: bool) -> None:
        """Five per cent of the bytes: whole chunks in a row, or of every twenty pages of 4 KiB
        one, and so a part of each chunk."""
        count = max(1, int(self.count * _CHANGED)) if clustered else self.count
        begin = version * count % self.count
        for number in range(count):
            self.changed[(begin + number) % self.count] = version


class Bench:
    """A folder on the disk to measure."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size // CHUNK * CHUNK
        self._ring = KeyRing(os.urandom(32))

    def disk(self) -> dict[str, float]:
        """Rates of one round, raw and ours in turn."""
        contents = Contents(self._size)
        store = Nvme(self._folder / "store")
        raw = rawdisk.raw(self._folder / "raw", self._size)
        began = time.perf_counter()
        manifest = self._seal(store, contents, "one")
        sealed = self._size / (time.perf_counter() - began)
        key = self._ring.open(store, "bench", manifest.key)
        began = time.perf_counter()
        reading.deliver(store, manifest, key, lambda *_: None, Course(SystemClock()))
        opened = self._size / (time.perf_counter() - began)
        shutil.rmtree(self._folder / "store")
        return {**raw, "seal": sealed, "open": opened}

    def objects(self, rounds: int) -> dict[str, float]:
        """Rates of a store of objects: obstore alone and ours in turn; then by size."""
        cores = sorted(os.sched_getaffinity(0))
        ours, theirs = cores[: max(1, len(cores) // 2)], cores[len(cores) // 2 :]
        os.sched_setaffinity(0, ours)
        try:
            work = self._folder / "objects"
            with ObjectServer.start(work, cores=frozenset(theirs)) as server:
                server.make_bucket("bench")
                return _bucket_rates(server.url, min(self._size, 2**30), rounds)
        finally:
            os.sched_setaffinity(0, cores)

    def wake(self, rounds: int) -> dict[str, float]:
        """Seconds of each stage alone, and of a wake into memory, in which they overlap."""
        store = Nvme(self._folder / "wake")
        manifest = self._seal(store, Contents(self._size), "one")
        key = self._ring.open(store, "bench", manifest.key)
        pool = memoryview(mmap.mmap(-1, self._size))
        for at in range(0, self._size, CHUNK):
            pool[at : at + CHUNK] = _FILLER  # its pages are there, as those of the agent's pool are

        def put(_: str, at: int, found: memoryview) -> None:
            pool[at : at + len(found)] = found

        rooms = _rooms(FULL + 2**20)
        work: dict[str, Callable[[], object]] = {
            "fetch": lambda: _each(manifest.pack_keys, lambda key: _fetched(store, key, rooms)),
            "open": lambda: _opened(store, manifest, key),
            "put": lambda: _each(range(0, self._size, CHUNK), lambda at: put("", at, _FILLER)),
            "wake": lambda: reading.deliver(store, manifest, key, put, Course(SystemClock())),
        }
        try:
            return {name: min(_seconds(call) for _ in range(rounds)) for name, call in work.items()}
        finally:
            shutil.rmtree(self._folder / "wake")

    def memory(self) -> dict[str, float]:
        """The most that sealing and waking took beside what was there, of 512 MiB."""
        store = Nvme(self._folder / "memory")
        contents = Contents(self._size)
        made: list[Manifest] = []
        seal = _peak(lambda: made.append(self._seal(store, contents, "one")))
        key = self._ring.open(store, "bench", made[0].key)
        course = Course(SystemClock())
        wake = _peak(lambda: reading.deliver(store, made[0], key, lambda *_: None, course))
        shutil.rmtree(self._folder / "memory")
        return {"seal_memory": seal / 2**29, "wake_memory": wake / 2**29}

    def kept(self) -> dict[str, float]:
        """Bytes of a second snapshot, and of ten replicas, beside those of the first."""
        size = min(self._size, 2**30)
        found = {}
        for name, clustered in (("second_snapshot_bytes", True), ("second_scattered_bytes", False)):
            contents, store = Contents(size), Nvme(self._folder / name)
            first = self._seal(store, contents, "first")
            before = _bytes(store)
            contents.change(1, clustered=clustered)
            self._seal(store, contents, "second", [first])
            found[name] = (_bytes(store) - before) / before
            shutil.rmtree(self._folder / name)
        contents, store = Contents(size), Nvme(self._folder / "gold")
        first = self._seal(store, contents, "gold")
        one = _bytes(store)
        for replica in range(1, 11):  # each in chunks of its own: another version of each
            diverged = Contents(size)
            diverged._noise = contents._noise
            diverged.change(replica, clustered=True)
            self._seal(store, diverged, f"replica-{replica}", [first])
        found["gold_10_bytes"] = _bytes(store) / one
        shutil.rmtree(self._folder / "gold")
        return found

    def _seal(
        self, store: Store, contents: Contents, name: str, held: list[Manifest] | None = None
    ) -> Manifest:
        key = self._ring.newest(store, "bench")
        known = writing.known(held or [], key)
        with Writing(store, "bench", key, Course(SystemClock()), known) as out:
            out.add("gpu/0", contents)
            return out.seal("bench", name, FACTS, _SIGNER)[0]


def _each(several: Iterable[T], call: Callable[[T], object]) -> None:
    with ThreadPoolExecutor(reading.SPANS) as threads:
        for _ in threads.map(call, several):
            pass


def _opened(store: Store, manifest: Manifest, key: DomainKey) -> None:
    """As many chunks as there are, all of them those of the first pack, which is in memory."""
    pack = manifest.packs[0]
    content = store.get(manifest.pack_keys[0])

    def one(number: int) -> None:
        chunk, begin = pack.chunks[number], pack.offsets[number]
        sealed = content[begin : begin + chunk.size + chunks.TAG]
        room = rooms.get()
        key.open(chunk.name, sealed, room[: chunk.size])
        rooms.put(room)

    rooms = _rooms(CHUNK)
    count = sum(len(listed.chunks) for listed in manifest.packs)
    _each((number % len(pack.chunks) for number in range(count)), one)


def _rooms(size: int) -> "queue.SimpleQueue[memoryview]":
    """Memory that is used again and again, as the pipelines do."""
    rooms: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    for _ in range(reading.SPANS):
        rooms.put(pages.taken(size))
    return rooms


def _fetched(store: Store, key: str, rooms: "queue.SimpleQueue[memoryview]") -> None:
    room = rooms.get()
    store.get(key, into=room)
    rooms.put(room)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _peak(work: Callable[[], object]) -> int:
    """Bytes of memory that were taken meanwhile, at most."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmHWM")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def _bytes(store: Store) -> int:
    return sum(one.size for one in store.list())


def _bucket_rates(url: str, size: int, rounds: int) -> dict[str, float]:
    access = Access(bucket="bench", endpoint=url, key_id=KEY_ID, secret=SECRET)
    ours = Bucket(access)
    alone = S3Store(
        "bench",
        config={"endpoint": url, "access_key_id": KEY_ID, "secret_access_key": SECRET},
        client_options={"allow_http": True, "timeout": "60s"},
    )
    body = os.urandom(FULL)
    ways: dict[str, Callable[[str], object]] = {
        "obstore put": lambda key: obstore.put(alone, key, body, use_multipart=False),
        "put": lambda key: ours.put(key, body),
        "obstore get": lambda key: obstore.get(alone, key).bytes(),
        "get": ours.get,
    }
    found = [{name: _rate(size, call) for name, call in ways.items()} for _ in range(rounds)]
    by_size = []
    for each in _OBJECTS:
        part = body[:each] if each <= FULL else body * (each // FULL)
        put = _rate(size // 4, lambda k, p=part: ours.put(k, p), each)  # type: ignore[misc]
        get = _rate(size // 4, ours.get, each)
        by_size.append([f"{each >> 20} MiB", f"{put / 1e9:.2f}", f"{get / 1e9:.2f}"])
    report.table("bucket, by the size of an object", ["object", "put GB/s", "get GB/s"], by_size)
    return _best(found)


def _rate(size: int, call: Callable[[str], object], each: int = FULL) -> float:
    count = max(_AT_ONCE, size // each)
    began = time.perf_counter()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for _ in threads.map(call, [f"object/{number}" for number in range(count)]):
            pass
    return count * each / (time.perf_counter() - began)


def _best(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: max(one[name] for one in rounds) for name in rounds[0]}


if __name__ == "__main__":
    main()
