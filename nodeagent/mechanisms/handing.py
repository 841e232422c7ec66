"""
A part's segments on their way from the guest to its card's worker, as a pipeline.

Called by `guestcopy`. While the card copies what it has, the worker maps the next segments, and the
guest hands over those after them. Rule: a descriptor lives here only until the worker has it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kybernate.clients.errors import Refused, Retry
from nodeagent.gpuworker.client import Worker, WorkerAway, WorkerRefused
from nodeagent.gpuworker.driver import GRAIN, OUT_OF_MEMORY
from nodeagent.mechanisms import CardFull, NotPossible, NotYet
from nodeagent.mechanisms.guests import closed
from nodeagent.mechanisms.guestwire import Answer, Verb
from nodeagent.mechanisms.holdings import ANSWER_S, Holding, done, heard

COPY_S = 120.0  # a whole card over a slow bus
_FIRST, _AT_ONCE = 4, 32  # of PyTorch's segments 640 MiB: 12 ms of a fast bus
_FIRST_BYTES, _MOST_BYTES, _MOST = 80 * 2**20, 4 * 2**30, 64

Handed = tuple[Answer, list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handing:
    """A part that is handed over with EXPORT, or BACK."""

    worker: Worker
    holding: Holding
    verb: Verb

    def each(self, arrived: Callable[[int, int], None]) -> None:
        """Hand all of it over; told after each batch: its first chunk, and how many. Raises the
        port's errors."""
        spans = list(self._spans())
        chunks = 0
        with ThreadPoolExecutor(1, "handing-over") as ahead:
            coming = ahead.submit(self._handed_over, *spans[0]) if spans else None
            for number, (first, some) in enumerate(spans):
                answer, descriptors = _came(coming)
                coming = None
                if number + 1 < len(spans):
                    coming = ahead.submit(self._handed_over, *spans[number + 1])
                try:
                    count = self._take(first, some, answer, descriptors)
                    arrived(chunks, count)
                    chunks += count
                except BaseException:
                    _throw_away(coming)
                    raise

    def ask(
        self,
        operation: str,
        more: Mapping[str, Any] | None = None,
        descriptors: list[int] | None = None,
    ) -> dict[str, Any]:
        """Something of the worker about this part. Raises CardFull, NotPossible, NotYet."""
        asked = {"op": operation, "part": self.holding.name, **(more or {})}
        try:
            return self.worker.ask(asked, COPY_S, descriptors)
        except WorkerAway as error:
            raise NotYet(str(error)) from error
        except WorkerRefused as error:
            raise (CardFull if error.code == OUT_OF_MEMORY else NotPossible)(str(error)) from error

    def _spans(self) -> Iterator[tuple[int, int]]:
        sizes = [segment.size for segment in self.holding.segments]
        return spans_back(sizes) if self.verb is Verb.BACK else spans_out(len(sizes))

    def _handed_over(self, first: int, count: int) -> Handed:
        guest, card = self.holding.guest, self.holding.card
        return heard(guest, self.verb, ANSWER_S, card=card, first=first, count=count)

    def _take(self, first: int, some: int, answer: Answer, descriptors: list[int]) -> int:
        """How many chunks came."""
        try:
            done(answer, self.holding.guest)
            expected = self.holding.segments[first : first + some]
            if [one.id for one in answer.segments] != [one.id for one in expected]:
                raise NotPossible(f"process {self.holding.guest.pid} changed its memory")
            sizes = [one.size for one in answer.segments]
            self.ask("take", {"sizes": sizes}, descriptors)
        finally:
            closed(descriptors)
            descriptors.clear()
        return sum(sizes) // GRAIN


def spans_out(segments: int) -> Iterator[tuple[int, int]]:
    """The first segment of each batch, and how many. The first ones are small, so that the bus is
    busy at once, and each is copied for longer than the next one, twice as large, takes to map."""
    first, count = 0, _FIRST
    while first < segments:
        yield first, min(count, segments - first)
        first, count = first + count, min(2 * count, _AT_ONCE)


def spans_back(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Likewise, by the segments' bytes: they have to be made before anything is copied into them,
    and what is pressed is copied faster than large ones are made."""
    first, enough, size = 0, _FIRST_BYTES, 0
    for number, more in enumerate(sizes, 1):
        size += more
        if size >= enough or number - first == _MOST or number == len(sizes):
            yield first, number - first
            first, enough, size = number, min(2 * enough, _MOST_BYTES), 0


def _came(coming: Future[Handed] | None) -> Handed:
    assert coming is not None
    return coming.result()


def _throw_away(coming: Future[Handed] | None) -> None:
    """Descriptors that nobody will take; those that were taken are closed already."""
    if coming is not None:
        with suppress(Refused, Retry):
            closed(coming.result()[1])
