"""
What sealing, opening and fetching a checkpoint cost, against `cp` and a plain connection.

    .venv/bin/python -m benchmarks.artifacts [--size 1Gi] [--files 8] [--rounds 3]

In one run, on one disk. The bounds: `cp` and `sync` for sealing (which names, encrypts, syncs and
signs), `sha256sum` for opening (which decrypts and names every byte), a plain TCP connection on
loopback into files that are synced for fetching (which comes over mutual TLS, and is decrypted and
named to be believed), the same connection for objects of 32 MiB that an agent lends, four at a
time. Ratios are of rates: 1.0 is as fast as the bound.
"""

import argparse
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import report
from kybernate.api.quantity import parse_bytes
from kybernate.artifacts.facts import Facts
from kybernate.clients.pb import peerstore_pb2_grpc
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.ids import NodeName, PodUid
from kybernate.runtime.clock import SystemClock
from kybernate.stores.ram import Ram
from nodeagent.checkpoints.fetching import Wanted
from nodeagent.checkpoints.lentstore import LentStore
from nodeagent.checkpoints.peers import Peers
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store
from testbed.lentstores import Lender

_BLOCK = 2 * 1024 * 1024
_OBJECT, _TOGETHER = 32 * 1024 * 1024, 4  # a pack's bytes; how many a wake has ahead
_FACTS = Facts(
    workload="benchmark",
    pod="benchmark",
    pod_uid=PodUid("u"),
    container="c",
    node=NodeName("a"),
    sealed_at=0.0,
    made_in=Fingerprint(
        kernel="", architecture="", boot="", image="", command=(), mechanism="simulated"
    ),
)


def main() -> None:
    """Measure, print."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix="kyb-artifacts-") as folder:
        bench = Bench(Path(folder), asked.size, asked.files)
        rounds = [bench.round(number) for number in range(asked.rounds)]
    best = {name: min(one[name] for one in rounds) for name in rounds[0]}
    rows = [
        [name, f"{seconds:.3f}", f"{asked.size / seconds / 1e9:.2f}"]
        for name, seconds in best.items()
    ]
    report.table(
        f"{asked.size / 2**30:.2f} GiB in {asked.files} files, best of {asked.rounds}",
        ["", "seconds", "GB/s"],
        rows,
    )
    ratios = {
        "seal_of_cp": best["cp and sync"] / best["seal"],
        "take_out_of_cp": best["cp and sync"] / best["take out"],
        "open_of_sha256sum": best["sha256sum"] / best["open"],
        "fetch_of_loopback": best["loopback and sync"] / best["fetch"],
        "objects_of_loopback": best["loopback and sync"] / best["objects"],
    }
    report.last_line("artifacts", ratios, best, size=asked.size, files=asked.files)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--size", type=parse_bytes, default=parse_bytes("1Gi"))
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=None, help="on the disk to measure")
    return parser.parse_args()


class Bench:
    """One folder with files to copy, two stores, and an agent that lends from the first."""

    def __init__(self, folder: Path, size: int, files: int) -> None:
        self._folder, self._size = folder, size
        self._source = folder / "source"
        self._source.mkdir()
        for number in range(files):
            with (self._source / f"part-{number}").open("wb") as file:
                for _ in range(size // files // _BLOCK):
                    file.write(os.urandom(_BLOCK))
        self._size = sum(path.stat().st_size for path in self._source.iterdir())
        keys = Keys.own(folder / "keys")
        self._a = Store(folder / "a", keys, 1 << 50)
        self._b = Store(folder / "b", keys, 1 << 50)

    def round(self, number: int) -> dict[str, float]:
        """Seconds of each."""
        name = f"round-{number}"
        took = {
            "cp and sync": _timed(self._cp),
            "seal": _timed(lambda: self._seal(name)),
            "sha256sum": _timed(self._sha256sum),
            "open": _timed(lambda: self._a.open("default", name)),
            "take out": self._taken_out(name),
            "loopback and sync": _timed(self._loopback),
        }
        with self._lending() as lender:
            peers = Peers(self._b, lender.credentials, lambda _: lender.address, SystemClock())
            wanted = Wanted(namespace="default", name=name)
            took["fetch"] = _timed(lambda: peers.fetch(wanted, NodeName("a")))
        with self._lending_objects() as lender:
            took["objects"] = _timed(lambda: _objects(lender, self._size))
        for store in (self._a, self._b):
            store.delete("default", name)
        return took

    def _cp(self) -> None:
        target = self._folder / "copy"
        subprocess.run(["cp", "-r", str(self._source), str(target)], check=True)
        subprocess.run(["sync", *map(str, target.iterdir())], check=True)
        shutil.rmtree(target)

    def _sha256sum(self) -> None:
        files = map(str, self._source.iterdir())
        subprocess.run(["sha256sum", *files], stdout=subprocess.DEVNULL, check=True)

    def _seal(self, name: str) -> None:
        with self._a.draft("default", name, self._size) as draft:
            for path in sorted(self._source.iterdir()):
                draft.take(f"image/{path.name}", path)
            draft.seal(_FACTS)

    def _taken_out(self, name: str) -> float:
        """Into plain files again, as a wake has a process image."""
        into = self._folder / "out"
        into.mkdir()
        seconds = _timed(lambda: self._a.believed("default", name).take_out("image", into))
        shutil.rmtree(into)
        return seconds

    def _loopback(self) -> None:
        """The same bytes through a TCP connection into files that are synced."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            sending = threading.Thread(target=self._send, args=(server,))
            sending.start()
            with socket.create_connection(server.getsockname()[:2]) as connection:
                self._receive(connection)
            sending.join()
        shutil.rmtree(self._folder / "received")

    def _send(self, server: socket.socket) -> None:
        with server.accept()[0] as connection:
            for path in sorted(self._source.iterdir()):
                with path.open("rb") as file:
                    connection.sendfile(file)

    def _receive(self, connection: socket.socket) -> None:
        folder, buffer = self._folder / "received", memoryview(bytearray(_BLOCK))
        folder.mkdir()
        for path in sorted(self._source.iterdir()):
            left = path.stat().st_size
            with (folder / path.name).open("wb") as file:
                while left:
                    count = connection.recv_into(buffer[: min(left, _BLOCK)])
                    file.write(buffer[:count])
                    left -= count
                file.flush()
                os.fsync(file.fileno())

    @contextmanager
    def _lending(self) -> Iterator[Lender]:
        """An agent with the first store."""
        yield from _lent(self._folder, LentStore(self._a.shelf.store))

    @contextmanager
    def _lending_objects(self) -> Iterator[Lender]:
        """Another one, with as many bytes in memory."""
        objects, content = Ram(2 * self._size + _OBJECT, SystemClock().now), os.urandom(_OBJECT)
        for number in range(self._size // _OBJECT):
            objects.put(f"domains/benchmark/packs/{number}", content)
        yield from _lent(self._folder, LentStore(objects))


def _lent(folder: Path, servicer: LentStore) -> Iterator[Lender]:
    lender = Lender(
        folder, lambda server: peerstore_pb2_grpc.add_PeerStoreServicer_to_server(servicer, server)
    )
    yield lender
    lender.end()


def _objects(lender: Lender, size: int) -> None:
    peer = lender.peer()
    with futures.ThreadPoolExecutor(_TOGETHER) as threads:
        keys = [f"domains/benchmark/packs/{number}" for number in range(size // _OBJECT)]
        assert sum(map(len, threads.map(peer.get, keys))) == len(keys) * _OBJECT
    peer.close()


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
