"""Requests by idempotency key, and the feed that ends them."""

import pytest

from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.verdict import Reason
from kybernate.model.workload import State
from kybernate.testing.clock import FakeClock
from nodeagent.api import tickets
from nodeagent.api.tickets import KeyReused, Tickets, Verb
from nodeagent.lives.feed import Doing, Ended, Feed, Update
from nodeagent.lives.phases import PhaseTime

A, B = WorkloadKey("default", "a"), WorkloadKey("default", "b")


def _update(key: WorkloadKey, state: State, ended: Ended | None = None) -> Update:
    return Update(key=key, uid=PodUid("u"), state=state, doing=Doing.DONE, ended=ended)


def test_the_same_key_is_the_same_ticket() -> None:
    book = Tickets(FakeClock())
    assert book.take("k", Verb.ACTIVATE, A) is book.take("k", Verb.ACTIVATE, A)


@pytest.mark.parametrize(("verb", "key"), [(Verb.PARK, A), (Verb.ACTIVATE, B)])
def test_a_key_belongs_to_one_request(verb: Verb, key: WorkloadKey) -> None:
    book = Tickets(FakeClock())
    book.take("k", Verb.ACTIVATE, A)
    with pytest.raises(KeyReused):
        book.take("k", verb, key)


def test_without_a_key_every_request_is_its_own() -> None:
    book = Tickets(FakeClock())
    assert book.take("", Verb.ACTIVATE, A) is not book.take("", Verb.ACTIVATE, A)


def test_the_book_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "KEPT", 2)
    book = Tickets(FakeClock())
    first = book.take("k0", Verb.ACTIVATE, A)
    for number in (1, 2):
        book.take(f"k{number}", Verb.ACTIVATE, A)
    assert book.take("k0", Verb.ACTIVATE, A) is not first


def test_a_ticket_ends_with_its_workload_and_splits_its_time() -> None:
    clock = FakeClock()
    book = Tickets(clock)
    ticket, other = book.take("a", Verb.ACTIVATE, A), book.take("b", Verb.ACTIVATE, B)
    clock.advance(5.0)
    phases = (PhaseTime(name="copy in", seconds=2.0, size=7),)
    book.put(_update(A, State.ACTIVE, Ended(ok=True, phases=phases)))
    assert ticket.ended is not None
    assert other.ended is None
    assert ticket.phases() == (PhaseTime(name="wait", seconds=3.0), *phases)


def test_a_resume_that_is_tried_again_does_not_end_the_request() -> None:
    book = Tickets(FakeClock())
    ticket = book.take("a", Verb.ACTIVATE, A)
    book.put(_update(A, State.PARKED, Ended(ok=False, reason=Reason.VRAM_NOT_FREE)))
    assert ticket.ended is None
    book.put(_update(A, State.PARKED, Ended(ok=True)))  # parked for somebody else: not its wish
    assert ticket.ended is None
    book.put(_update(A, State.QUARANTINED, Ended(ok=False, reason=Reason.QUARANTINED)))
    assert ticket.ended == Ended(ok=False, reason=Reason.QUARANTINED)


def test_a_park_that_failed_is_the_answer() -> None:
    book = Tickets(FakeClock())
    ticket = book.take("a", Verb.PARK, A)
    book.put(_update(A, State.ACTIVE, Ended(ok=False, reason=Reason.NOT_PARKABLE)))
    assert ticket.ended == Ended(ok=False, reason=Reason.NOT_PARKABLE)


def test_a_listener_that_lags_loses_progress_but_no_ending() -> None:
    feed = Feed()
    with feed.listening() as listener:
        feed.publish(_update(A, State.ACTIVE, Ended(ok=True)))
        for _ in range(1000):
            feed.publish(_update(B, State.ACTIVATING))
        first = listener.next(0.0)
        assert first is not None
        assert first.ended == Ended(ok=True)


def test_a_closed_feed_lets_everybody_go() -> None:
    feed = Feed()
    feed.close()
    with feed.listening() as listener:
        assert listener.closed
        assert listener.next(60.0) is None


def test_a_request_to_park_is_not_refused_because_people_want_the_same() -> None:
    book = Tickets(FakeClock())
    ticket = book.take("a", Verb.PARK, A)
    book.put(_update(A, State.ACTIVE, Ended(ok=False, reason=Reason.WANTED_PARKED)))
    assert ticket.ended is None
    book.put(_update(A, State.PARKED, Ended(ok=True)))
    assert ticket.ended == Ended(ok=True)


def test_a_request_to_park_that_somebody_overtook_ends() -> None:
    book = Tickets(FakeClock())
    park, other = book.take("a", Verb.PARK, A), book.take("b", Verb.PARK, B)
    activate = book.take("c", Verb.ACTIVATE, A)
    book.overtaken(A)
    assert park.ended == Ended(ok=False, message="somebody asked for it meanwhile")
    assert (activate.ended, other.ended) == (None, None)
