"""
The worker's side of the protocol: requests in, one at a time, each answered.

Called by `__main__`. Every error of one request is told in its answer; the worker goes on, unless
the card does not answer any more (a sticky error): then it ends, and the agent starts another.
When an agent goes away, what it had begun is ended before the next one is listened to.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodeagent.gpuworker import probe, wire
from nodeagent.gpuworker.alike import Alike
from nodeagent.gpuworker.checkpoints import Checkpoints
from nodeagent.gpuworker.driver import Driver, DriverError
from nodeagent.gpuworker.fingerprints import Fingerprints, Room
from nodeagent.gpuworker.parts import Part, Streams
from nodeagent.gpuworker.pressing import Pressing
from nodeagent.gpuworker.slabs import Slabs

Message = dict[str, Any]


class Serving:
    """One card's worker."""

    def __init__(self, driver: Driver) -> None:
        """Raises DriverError."""
        self._driver = driver
        self._prints = Fingerprints(driver)
        self._slabs = Slabs(driver, Path(), 0)
        self._streams = Streams(
            before=driver.stream(), copies=driver.stream(), after=driver.stream()
        )
        self._parts: dict[str, Part] = {}
        self._dropped: list[Part] = []
        self._pressing = Pressing(driver, self._prints)
        self._room, self._alike = Room(driver), Alike(driver, self._pressing)
        self._operations: dict[str, Callable[[Message, list[int]], Message]] = {
            "pool": self._pool,
            "pin": self._pin,
            "begin": self._begin,
            "take": self._take,
            "compare": self._compare,
            "move": self._move,
            "finish": self._finish,
            "drop": self._drop,
            "end": self._end,
            "press": self._press,
            "store": self._store,
            "barrier": self._barrier,
            "probe": self._probe,
            "about": self._about,
            **Checkpoints().operations,
        }

    def serve(self, agent: socket.socket) -> bool:
        """Until the agent goes away (True: another one may come) or says that we shall."""
        try:
            while True:
                asked, descriptors = wire.receive(agent)
                try:
                    if asked.get("op") == "leave":
                        return False
                    reply, well = self._answer(asked, descriptors)
                finally:
                    for one in descriptors:
                        os.close(one)
                wire.send(agent, reply)
                if not well:
                    return False
                self._let_go()
        except (EOFError, OSError, ValueError):
            return True
        finally:
            self._dropped += self._parts.values()
            self._parts.clear()
            self._let_go()

    def _answer(self, asked: Message, descriptors: list[int]) -> tuple[Message, bool]:
        """The reply, and whether the card still answers."""
        try:
            return {"ok": True, **self._operations[asked["op"]](asked, descriptors)}, True
        except DriverError as error:
            return {"ok": False, "why": str(error), "code": error.code}, self._is_well()
        except (OSError, ValueError, KeyError, TypeError) as error:
            return {"ok": False, "why": str(error) or repr(error), "code": 0}, True

    def _is_well(self) -> bool:
        try:
            self._driver.free_bytes()
        except DriverError:
            return False
        return True

    def _pool(self, asked: Message, _: list[int]) -> Message:
        """Where slabs are, and how large; what was pinned of others is let go."""
        folder, size = Path(asked["folder"]), int(asked["size"])
        if not self._slabs.is_of(folder, size):
            self._slabs.let_go()
            self._slabs = Slabs(self._driver, folder, size)
        return {}

    def _pin(self, asked: Message, _: list[int]) -> Message:
        for number in asked["slabs"]:
            self._slabs.slab(number)
        return {}

    def _begin(self, asked: Message, _: list[int]) -> Message:
        self._end(asked, [])
        key = bytes.fromhex(asked["key"])
        part = Part(
            driver=self._driver,
            prints=self._prints,
            room=self._room,
            streams=self._streams,
            slabs=self._slabs,
            pressing=self._pressing,
            key=key,
            out=asked["out"],
            total=asked["total"],
            file=Path(asked["prints"]),
        )
        self._parts[asked["part"]] = part
        part.begin()
        return {"zero": self._prints.of_zeros(key, self._streams.before).hex()}

    def _take(self, asked: Message, descriptors: list[int]) -> Message:
        self._parts[asked["part"]].take(descriptors, asked["sizes"])
        return {}

    def _compare(self, asked: Message, _: list[int]) -> Message:
        part = self._parts[asked["part"]]
        return {"differing": self._alike.differing(part, self._slabs, asked["pairs"])}

    def _move(self, asked: Message, _: list[int]) -> Message:
        part = self._parts[asked["part"]]
        part.move(asked.get("runs", ()))
        part.expand(asked.get("pressed", ()))
        part.clear(asked.get("zeros", ()))
        if "arrived" in asked:
            part.arrived(*asked["arrived"])
        return {}

    def _finish(self, asked: Message, _: list[int]) -> Message:
        part = self._parts[asked["part"]]
        return {"seconds": part.finish(), "copied": part.copied}

    def _drop(self, asked: Message, _: list[int]) -> Message:
        """Answered at once, done before the next request: nobody waits for mappings to go."""
        part = self._parts.pop(asked["part"], None)
        if part is not None:
            self._dropped.append(part)
        return {}

    def _end(self, asked: Message, _: list[int]) -> Message:
        """As `drop`, and when it is answered nothing of the part is copied any more."""
        self._drop(asked, [])
        self._let_go()
        return {}

    def _let_go(self) -> None:
        while self._dropped:
            self._dropped.pop().end()

    def _press(self, asked: Message, _: list[int]) -> Message:
        """Plain chunks of the pool, for `store`: how large each would be."""
        copies = self._streams.copies
        return {"sizes": self._pressing.press(asked["places"], self._slabs, copies)}

    def _store(self, asked: Message, _: list[int]) -> Message:
        """Some of what was pressed; the fingerprints of what comes out of it again."""
        key, copies = bytes.fromhex(asked["key"]), self._streams.copies
        prints = self._pressing.store(asked["chunks"], self._slabs, key, copies)
        return {"prints": [one.hex() for one in prints]}

    def _barrier(self, asked: Message, _: list[int]) -> Message:
        """The driver's own lock, taken and given back: nothing that passed us by is under way."""
        self._driver.lock_process(asked["pid"], asked["milliseconds"])
        self._driver.unlock_process(asked["pid"])
        return {}

    def _probe(self, asked: Message, _: list[int]) -> Message:
        runs, copies = asked["runs"], self._streams.copies
        return probe.copied(self._driver, copies, self._slabs, runs, out=asked["out"])

    def _about(self, _: Message, __: list[int]) -> Message:
        return {"pinned": self._slabs.pinned, "pid": os.getpid()}
