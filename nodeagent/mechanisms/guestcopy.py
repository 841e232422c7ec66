"""
One part's way between its guest and its card's worker, as a pipeline of three.

Called by `guest`. While the card copies what it has, the worker maps the next segments, and the
guest hands over those after them. Rule: a descriptor lives here only until the worker has it.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kybernate.clients.errors import Refused, Retry
from nodeagent.gpuworker.client import Worker, WorkerAway, WorkerRefused
from nodeagent.gpuworker.driver import OUT_OF_MEMORY
from nodeagent.mechanisms import CardFull, Moved, NotPossible, NotYet
from nodeagent.mechanisms.guests import closed
from nodeagent.mechanisms.guestwire import Answer, Verb
from nodeagent.mechanisms.holdings import ANSWER_S, Holding, done, heard

COPY_S = 120.0  # a whole card over a slow bus
_AT_ONCE = 32  # 640 MiB of PyTorch's segments: 12 ms of a fast bus


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A part out of VRAM (EXPORT) or back into it (BACK)."""

    worker: Worker
    holding: Holding
    verb: Verb
    slabs: tuple[Path, ...]
    record: Path  # its fingerprints

    def run(self, moved: Moved) -> int:
        """How many chunks are not what they should be. Raises the port's errors."""
        begin = {
            "out": self.verb is Verb.EXPORT,
            "total": self.holding.size,
            "slabs": [str(slab) for slab in self.slabs],
            "record": str(self.record),
        }
        try:
            self._ask("begin", begin)
            self._hand_over(moved)
            return int(self._ask("finish")["wrong_count"])
        finally:
            with suppress(NotYet):
                self._ask("drop")

    def _hand_over(self, moved: Moved) -> None:
        places = range(0, len(self.holding.segments), _AT_ONCE)
        with ThreadPoolExecutor(1, "handing-over") as ahead:
            coming = ahead.submit(self._handed_over, 0)
            for first in places:
                answer, descriptors = coming.result()
                if first + _AT_ONCE in places:
                    coming = ahead.submit(self._handed_over, first + _AT_ONCE)
                try:
                    moved(self._take(first, answer, descriptors))
                except BaseException:
                    _throw_away(coming)
                    raise

    def _handed_over(self, first: int) -> tuple[Answer, list[int]]:
        guest, card = self.holding.guest, self.holding.card
        return heard(guest, self.verb, ANSWER_S, card=card, first=first, count=_AT_ONCE)

    def _take(self, first: int, answer: Answer, descriptors: list[int]) -> int:
        try:
            done(answer, self.holding.guest)
            expected = self.holding.segments[first : first + _AT_ONCE]
            if [one.id for one in answer.segments] != [one.id for one in expected]:
                raise NotPossible(f"process {self.holding.guest.pid} changed its memory")
            sizes = [one.size for one in answer.segments]
            self._ask("take", {"sizes": sizes}, descriptors)
        finally:
            closed(descriptors)
            descriptors.clear()
        return sum(sizes)

    def _ask(
        self,
        operation: str,
        more: Mapping[str, Any] | None = None,
        descriptors: list[int] | None = None,
    ) -> dict[str, Any]:
        asked = {"op": operation, "part": self.holding.name, **(more or {})}
        try:
            return self.worker.ask(asked, COPY_S, descriptors)
        except WorkerAway as error:
            raise NotYet(str(error)) from error
        except WorkerRefused as error:
            raise (CardFull if error.code == OUT_OF_MEMORY else NotPossible)(str(error)) from error


def _throw_away(coming: Future[tuple[Answer, list[int]]]) -> None:
    """Descriptors that nobody will take; those that were taken are closed already."""
    with suppress(Refused, Retry):
        closed(coming.result()[1])
