"""
Faked: the cards (80 and 24 GiB, at scale 65536, so that 40 GiB are 640 KiB of content).
Left real: the service, its socket, its clients, the processes that attach. Every test has its own
service in this process; the bus is as fast as can be unless a test slows it.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kybernate.clients.simgpu import Attachment, Driver
from kybernate.model.gpu import Gpu
from kybernate.model.ids import GpuUuid
from testbed.gpu.service import running

GIB = 2**30
BIG, SMALL = GpuUuid("GPU-big"), GpuUuid("GPU-small")
UNTHROTTLED = 1e15  # bytes/s


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    """A service's socket."""
    gpus = [
        Gpu(index=0, uuid=BIG, product="Big", memory=80 * GIB, numa=0, links={1: 104}),
        Gpu(index=1, uuid=SMALL, product="Small", memory=24 * GIB, links={0: 104}),
    ]
    path = tmp_path / "gpu.sock"
    with running(gpus, path, scale=65536, bytes_per_second=UNTHROTTLED):
        yield path


@pytest.fixture
def driver(socket: Path) -> Iterator[Driver]:
    """The driver's side."""
    with Driver(socket) as made:
        yield made


@pytest.fixture
def attach(socket: Path) -> Iterator[Callable[..., Attachment]]:
    """Makes attachments of this process that end with the test."""
    made: list[Attachment] = []

    def make(*cards: str, pid: int | None = None) -> Attachment:
        made.append(Attachment(socket, pid or os.getpid(), cards or (BIG,)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Look again until it is so; the test's own time limit ends a wait that is in vain."""

    def wait(happened: Callable[[], bool]) -> None:
        while not happened():
            pass

    return wait
