"""
The worker's side of the protocol: requests in, one at a time, each answered.

Called by `__main__`. Every error of one request is told in its answer; the worker goes on. A driver
error that stays (a sticky one) is the agent's to see: it ends the worker and starts another.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any

from nodeagent.gpuworker import wire
from nodeagent.gpuworker.checkpoints import Checkpoints
from nodeagent.gpuworker.driver import Driver, DriverError
from nodeagent.gpuworker.fingerprints import Fingerprints, Room
from nodeagent.gpuworker.parts import Part, Streams
from nodeagent.gpuworker.slabs import Slabs

Message = dict[str, Any]


class Serving:
    """One card's worker."""

    def __init__(self, driver: Driver) -> None:
        """Raises DriverError."""
        self._driver = driver
        self._prints = Fingerprints(driver)
        self._slabs = Slabs(driver)
        self._streams = Streams(
            before=driver.stream(), copies=driver.stream(), after=driver.stream()
        )
        self._parts: dict[str, Part] = {}
        self._dropped: list[Part] = []
        self._room = Room(driver)
        self._operations = {
            "pin": self._pin,
            "begin": self._begin,
            "take": self._take,
            "finish": self._finish,
            "drop": self._drop,
            "barrier": self._barrier,
            "probe": self._probe,
            **Checkpoints().operations,
        }

    def serve(self, agent: socket.socket) -> None:
        """Until the agent goes away."""
        while True:
            try:
                asked, descriptors = wire.receive(agent)
            except (EOFError, OSError):
                return
            try:
                reply = self._answer(asked, descriptors)
            finally:
                for one in descriptors:
                    os.close(one)
            wire.send(agent, reply)
            self._let_go()

    def _answer(self, asked: Message, descriptors: list[int]) -> Message:
        try:
            return {"ok": True, **self._operations[asked["op"]](asked, descriptors)}
        except DriverError as error:
            return {"ok": False, "why": str(error), "code": error.code}
        except (OSError, ValueError, KeyError) as error:
            return {"ok": False, "why": str(error) or repr(error), "code": 0}

    def _pin(self, asked: Message, _: list[int]) -> Message:
        for path in asked["slabs"]:
            self._slabs.slab(Path(path))
        return {}

    def _begin(self, asked: Message, _: list[int]) -> Message:
        self._drop(asked, [])
        self._let_go()
        part = Part(
            driver=self._driver,
            prints=self._prints,
            room=self._room,
            streams=self._streams,
            slabs=tuple(self._slabs.slab(Path(path)) for path in asked["slabs"]),
            record=Path(asked["record"]),
            out=asked["out"],
            total=asked["total"],
        )
        self._parts[asked["part"]] = part
        part.begin()
        return {}

    def _take(self, asked: Message, descriptors: list[int]) -> Message:
        self._parts[asked["part"]].take(descriptors, asked["sizes"])
        return {}

    def _finish(self, asked: Message, _: list[int]) -> Message:
        done = self._parts[asked["part"]].finish()
        return {"wrong": done.wrong[:16], "wrong_count": len(done.wrong), "seconds": done.seconds}

    def _drop(self, asked: Message, _: list[int]) -> Message:
        """Answered at once, done before the next request: nobody waits for mappings to go."""
        part = self._parts.pop(asked["part"], None)
        if part is not None:
            self._dropped.append(part)
        return {}

    def _let_go(self) -> None:
        while self._dropped:
            self._dropped.pop().end()

    def _barrier(self, asked: Message, _: list[int]) -> Message:
        """The driver's own lock, taken and given back: nothing that passed us by is under way."""
        self._driver.lock_process(asked["pid"], asked["milliseconds"])
        self._driver.unlock_process(asked["pid"])
        return {}

    def _probe(self, asked: Message, _: list[int]) -> Message:
        """Plain copies between memory of our own and slabs, each once."""
        slabs = [self._slabs.slab(Path(path)) for path in asked["slabs"]]
        at, copies = self._driver.allocate(max(slab.size for slab in slabs)), self._streams.copies
        try:
            began = time.monotonic()
            for slab in slabs:
                if asked["out"]:
                    self._driver.copy_out(slab.at, at, slab.size, copies)
                else:
                    self._driver.copy_in(at, slab.at, slab.size, copies)
            self._driver.wait(copies)
            spent = time.monotonic() - began
            return {"bytes": sum(slab.size for slab in slabs), "seconds": spent}
        finally:
            self._driver.free(at)
