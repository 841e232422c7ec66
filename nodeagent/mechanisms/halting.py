"""
All ranks of a job stopped after the same collectives, before their gates are closed.

Called by `guest`. What `collectives` decides is asked of the guests here. Rule: on any error, and
when the time is over, the caller opens all of them again; a guest whose agent died lets go by
itself. A guest from before it knew of collectives has none.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nodeagent.mechanisms import NotYet, guestwire
from nodeagent.mechanisms.collectives import Line, Standing, course
from nodeagent.mechanisms.guests import Guest
from nodeagent.mechanisms.guestwire import Answer, Status, Verb
from nodeagent.mechanisms.holdings import ANSWER_S, heard

_LOOK_S = 0.0005
_GRACE_S = 5.0  # a guest lets go by itself so much later than we would have it
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def at_once(work: Callable[[_Item], _Result], of: Sequence[_Item]) -> list[_Result]:
    """The same for each, at the same time; all have ended when it raises the first error."""
    if len(of) == 1:
        return [work(of[0])]
    with ThreadPoolExecutor(max(1, len(of)), "at-once") as threads:
        done = [threads.submit(work, one) for one in of]
    return [one.result() for one in done]


def halt(guests: Sequence[Guest], until: float) -> bool:
    """Stop them, by `until` of the monotonic clock, and wait for what they started; whether there
    was anything to stop. Raises NotYet in words, BodyGone."""
    left = max(0.1, until - time.monotonic())
    answers = at_once(lambda guest: heard(guest, Verb.HOLD, left + _GRACE_S)[0], guests)
    with_some = [g for g, a in zip(guests, answers, strict=True) if _has_any(a)]
    if not with_some:
        return False
    _stop(with_some, until)
    at_once(lambda guest: _settle(guest, until), with_some)
    return True


def standings(guests: Iterable[Guest]) -> tuple[Standing, ...]:
    """How far those of them are that have collectives. Raises NotYet, BodyGone."""
    found = (_standing(guest) for guest in guests)
    return tuple(one for one in found if one.lines or one.setting_up)


def _has_any(answer: Answer) -> bool:
    return answer.status == Status.DONE and answer.count > 0


def _stop(guests: Sequence[Guest], until: float) -> None:
    told: dict[int, int] = {}
    while True:
        seen = [_standing(guest) for guest in guests]
        found = course(seen)
        if found.stopped:
            return
        if time.monotonic() >= until:
            raise NotYet(f"its ranks do not come to stand at one place: {found.why}")
        late = _held_below(found.targets, seen)
        if new := {k: to for k, to in found.targets.items() if to > told.get(k, -1) or k in late}:
            for guest in guests:
                _let_on(guest, new)
            told |= new
        threading.Event().wait(_LOOK_S)


def _held_below(targets: Mapping[int, int], of: Sequence[Standing]) -> frozenset[int]:
    """Lines where somebody is held who need not be: they began after all were told."""
    lines = (line for one in of for line in one.lines)
    return frozenset(one.key for one in lines if 0 < one.wanted <= targets[one.key])


def _let_on(guest: Guest, targets: dict[int, int]) -> None:
    for count, pairs in guestwire.upto(targets):
        heard(guest, Verb.UPTO, ANSWER_S, count=count, to=pairs)


def _standing(guest: Guest) -> Standing:
    lines: list[Line] = []
    while True:
        page = heard(guest, Verb.COUNTS, ANSWER_S, first=len(lines))[0]
        if page.counts is None:
            return Standing(pid=guest.pid)
        lines += page.counts.lines
        if len(lines) >= page.total or not page.counts.lines:
            break
    last = page.counts
    return Standing(
        pid=guest.pid, inside=last.inside, setting_up=last.setting_up, lines=tuple(lines)
    )


def _settle(guest: Guest, until: float) -> None:
    """Gates are open still: whoever moves bytes for a collective can."""
    left = max(0.1, until - time.monotonic())
    if heard(guest, Verb.SETTLE, left)[0].status:
        raise NotYet(f"process {guest.pid}: submitted work did not end")
