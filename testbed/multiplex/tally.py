"""
Every request and what became of it, and what is wrong with that. Pure but for its lock.

Called by: `replay` (writes), `__main__` and tests (read). Rule: an answer is taken at its word only
where it can be checked: it names its model and repeats the request's tag, and the model counts its
requests in the card's memory.
"""

import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from testbed.multiplex.workload import Request

_TEXT = re.compile(
    r"(?P<model>\S+) answers request (?P<counter>\d+) \((?P<tag>\S*)\), contents (\w+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. Seconds since the request was sent; `position` in its client's order."""

    request: Request
    status: int
    model: str
    text: str
    seconds: float
    position: int


@dataclass
class Tally:
    """Of the requests that are to be asked. Thread safe."""

    requests: Sequence[Request]
    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, answer: Answer) -> None:
        """One more."""
        with self._lock:
            self.answers.append(answer)

    def failed(self, why: str) -> None:
        """A client's connection ended otherwise than in answers."""
        with self._lock:
            self.broken.append(why)

    def faults(self) -> list[str]:
        """Everything that is wrong, in words; nothing where all is well."""
        return [
            *self.broken,
            *self._lost(),
            *(fault for answer in self.answers for fault in _wrong(answer)),
            *self._out_of_order(),
            *self._counted_wrong(),
        ]

    def seconds(self, model: str | None = None) -> list[float]:
        """What answers took, of one model or of all, shortest first."""
        wanted = (one for one in self.answers if model in (None, one.request.model))
        return sorted(one.seconds for one in wanted)

    def _lost(self) -> Iterator[str]:
        seen = Counter(answer.request.tag for answer in self.answers)
        for request in self.requests:
            if seen[request.tag] != 1:
                yield f"{request.tag} to {request.model}: {seen[request.tag]} answers"

    def _out_of_order(self) -> Iterator[str]:
        """Each client was answered in the order in which it asked."""
        of: dict[int, list[Answer]] = defaultdict(list)
        for answer in self.answers:
            of[answer.request.client].append(answer)
        for client, answers in of.items():
            asked = [r.tag for r in self.requests if r.client == client]
            told = [a.request.tag for a in sorted(answers, key=lambda one: one.position)]
            if told != asked[: len(told)]:
                yield f"client {client} was answered out of order"

    def _counted_wrong(self) -> Iterator[str]:
        """Each model counted each of its requests once: none twice, none by another."""
        counters: dict[str, list[int]] = defaultdict(list)
        for answer in self.answers:
            found = _TEXT.match(answer.text)
            if found:
                counters[answer.request.model].append(int(found["counter"]))
        for model, counted in sorted(counters.items()):
            if sorted(counted) != list(range(1, len(counted) + 1)):
                yield f"{model} was asked {len(counted)} times and counts {max(counted)}"


def _wrong(answer: Answer) -> Iterator[str]:
    request = answer.request
    if answer.status != 200:
        yield f"{request.tag} to {request.model} was answered {answer.status}: {answer.text[:120]}"
        return
    found = _TEXT.match(answer.text)
    said = found["model"] if found else ""
    if answer.model != request.model or said != request.model:
        yield f"{request.tag} to {request.model} was answered by {answer.model or answer.text!r}"
    elif found is None or found["tag"] != request.tag:
        yield f"{request.tag} to {request.model} got another request's answer: {answer.text!r}"
    elif found[4] != "intact":
        yield f"{request.tag}: the contents of {request.model} are {found[4]}"
