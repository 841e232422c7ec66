"""A driver error of one request is told; one that stays ends the worker, which starts the next."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.gpuworker import wire
from nodeagent.gpuworker.driver import DriverError
from nodeagent.gpuworker.serving import Serving

ILLEGAL_ADDRESS = 700


class Card:
    """A driver that fails where a test says so."""

    sticky = False

    def stream(self) -> int:
        return 1

    def kernel(self, image: bytes, name: bytes) -> int:
        return 1

    def free_bytes(self) -> int:
        if self.sticky:
            raise DriverError("cuMemGetInfo", ILLEGAL_ADDRESS)
        return 1

    def reserve(self, size: int) -> int:
        raise DriverError("cuMemAddressReserve", ILLEGAL_ADDRESS)

    def wait(self, stream: int) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    """The card, the agent's end, and whether the worker would let another agent in."""
    card = Card()
    agent, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker: Any = Serving(card)  # type: ignore[arg-type]
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(worker.serve(ours)), daemon=True)
    thread.start()

    def ask(**message: Any) -> dict[str, Any]:
        agent.settimeout(60)
        wire.send(agent, message)
        return wire.receive(agent)[0]

    def end() -> bool:
        agent.close()
        thread.join(60)
        return ended[0]

    yield card, ask, end
    agent.close()
    thread.join(60)
    ours.close()


BEGIN = {"op": "begin", "part": "p", "key": "00", "out": True, "total": 2**21, "prints": "x"}


def test_an_error_is_told_and_the_worker_goes_on(served: Any) -> None:
    _, ask, end = served
    assert (ask(**BEGIN)["ok"], ask(**BEGIN)["code"]) == (False, ILLEGAL_ADDRESS)
    assert ask(op="about")["ok"]
    assert end() is True, "it waits for the next agent"


def test_an_error_that_stays_ends_the_worker(served: Any) -> None:
    card, ask, end = served
    card.sticky = True
    assert ask(**BEGIN)["code"] == ILLEGAL_ADDRESS
    assert end() is False


@pytest.mark.parametrize(
    "asked",
    [
        {"op": "nonsense"},
        {"nothing": 1},
        {"op": "take", "part": "unknown", "sizes": []},
        {"op": "begin", "part": "p"},
        {**BEGIN, "total": 17},
        {"op": "pin", "slabs": ["x"]},
    ],
)
def test_what_is_not_understood_is_answered(served: Any, asked: dict[str, Any]) -> None:
    _, ask, _ = served
    assert ask(**asked)["ok"] is False
    assert ask(op="about")["ok"]
