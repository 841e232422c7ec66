"""
Whatever many do at once, the card's books hold: property tests over the device, and a stress run.

Left out: the network. Faked: nothing else; the callers are threads.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from kybernate.model.gpu import Gpu
from testbed.gpu.card import Card
from testbed.gpu.contexts import Owner
from testbed.gpu.device import Device
from testbed.gpu.errors import Absent, DeviceRefused, NoRoom, WrongState

MEMORY = 1000


class Patient:
    """A caller that never goes away and whose waits take no time."""

    def alive(self):
        return True

    def wait(self, seconds):
        return False


def device(memory=MEMORY):
    cards = [
        Card.of(Gpu(index=i, uuid=f"GPU-{i}", product="P", memory=memory), 1e15) for i in range(2)
    ]
    return Device(cards, scale=1)


class Books(RuleBasedStateMachine):
    """Anybody does anything in any order, one after the other; a model keeps count beside."""

    contexts = Bundle("contexts")
    segments = Bundle("segments")

    def __init__(self):
        super().__init__()
        self.device = device()
        self.held = {}  # segment -> (context, card, bytes)
        self.away = {}  # segment -> contents
        self.locked = set()
        self.made = 0
        self.ended = set()

    @rule(target=contexts)
    def attach(self):
        self.made += 1
        return self.device.attach(Owner(pid=self.made), ["GPU-0", "GPU-1"]).name

    @rule(context=contexts)
    def end(self, context):
        self.device.detach(context)
        self.ended.add(context)
        self.held = {s: h for s, h in self.held.items() if h[0] != context}

    @rule(
        target=segments,
        context=contexts,
        card=st.sampled_from(["GPU-0", "GPU-1"]),
        size=st.integers(1, 600),
    )
    def allocate(self, context, card, size):
        if context in self.ended or context in self.locked:
            return multiple()
        try:
            made = self.device.allocate(context, card, size, Patient())
        except NoRoom:
            assert self.used(card) + size > MEMORY
            return multiple()
        assert self.used(card) + size <= MEMORY
        self.held[made.name] = (context, card, size)
        return (context, made.name)

    @rule(context=contexts)
    def lock(self, context):
        if context not in self.ended:
            self.device.lock(context, Patient())
            self.locked.add(context)

    @rule(context=contexts)
    def unlock(self, context):
        if context in self.ended:
            return
        whole = all(s in self.held for s in self.owned(context))
        try:
            self.device.unlock(context, Patient())
        except WrongState:
            assert not whole
        else:
            assert whole
            self.locked.discard(context)

    @rule(segment=segments)
    def park(self, segment):
        context, name = segment
        try:
            contents = b"".join(self.device.copy_out(context, name, Patient(), None))
            self.device.release(context, name, Patient())
        except DeviceRefused:
            assert context in self.ended or context not in self.locked or name not in self.held
        else:
            self.away[name] = (contents, self.held.pop(name))

    @rule(segment=segments)
    def resume(self, segment):
        context, name = segment
        if name not in self.away or name in self.held:
            return
        contents, held = self.away[name]
        try:
            self.device.copy_in(context, name, iter([contents]), Patient(), None)
        except Absent:
            assert context in self.ended
        except NoRoom:
            assert self.used(held[1]) + held[2] > MEMORY
        else:
            self.held[name] = held
            (shown,) = [s for s in self.device.segments(context) if s.name == name]
            assert bytes(shown.content) == contents

    def used(self, card):
        return sum(size for _, on, size in self.held.values() if on == card)

    def owned(self, context):
        return [s.name for s in self.device.segments(context)]

    @invariant()
    def the_card_shows_what_is_held(self):
        for uuid, card in self.device.cards.items():
            assert card.shown == self.used(uuid) <= MEMORY


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(100, 700), min_size=2, max_size=6))
def test_the_card_is_never_overbooked_by_threads(sizes):
    """Each thread takes, parks, resumes, and goes; at every moment the card's bytes suffice."""
    made = device()
    over = []
    done = threading.Event()

    def watch():
        while not done.is_set():
            with made.reading():
                over.extend(c.shown for c in made.cards.values() if not 0 <= c.shown <= MEMORY)

    def live(pid, size):
        context = made.attach(Owner(pid=pid), ["GPU-0"]).name
        try:
            segment = made.allocate(context, "GPU-0", size, Patient())
            for _ in range(5):
                made.lock(context, Patient())
                contents = list(made.copy_out(context, segment.name, Patient(), None))
                made.release(context, segment.name, Patient())
                made.copy_in(context, segment.name, iter(contents), Patient(), None)
                made.unlock(context, Patient())
        except NoRoom:
            pass
        finally:
            made.detach(context)

    with ThreadPoolExecutor(len(sizes) + 1) as pool:
        watched = pool.submit(watch)
        lives = [pool.submit(live, pid, size) for pid, size in enumerate(sizes, start=1)]
        for one in lives:
            one.result()
        done.set()
        watched.result()
    assert over == []
    assert all(card.shown == 0 for card in made.cards.values())


def test_no_wakeup_is_lost_between_lock_and_unlock():
    """Workers count while others lock and unlock all the time; every count arrives."""
    made = device()
    context = made.attach(Owner(pid=1), ["GPU-0"]).name
    segment = made.allocate(context, "GPU-0", 100, Patient())
    counted = []
    stop = threading.Event()

    def work():
        for _ in range(200):
            with made.working(context, segment.name, Patient()):
                assert not made._contexts[context].locked
                counted.append(1)

    def switch():
        while not stop.is_set():
            made.lock(context, Patient())
            before = len(counted)
            assert made._contexts[context].running == 0
            assert len(counted) == before
            made.unlock(context, Patient())

    with ThreadPoolExecutor(7) as pool:
        switchers = [pool.submit(switch)]
        workers = [pool.submit(work) for _ in range(6)]
        for worker in workers:
            worker.result()
        stop.set()
        for switcher in switchers:
            switcher.result()
    assert len(counted) == 1200


def test_no_content_is_taken_before_there_is_room():
    made = device()
    one, other = (made.attach(Owner(pid=pid), ["GPU-0"]).name for pid in (1, 2))
    segment = made.allocate(one, "GPU-0", 600, Patient())
    made.lock(one, Patient())
    made.release(one, segment.name, Patient())
    made.allocate(other, "GPU-0", 500, Patient())
    contents = iter([bytes(600)])
    with pytest.raises(NoRoom):
        made.copy_in(one, segment.name, contents, Patient(), None)
    assert len(next(contents)) == 600
