"""Keys are looked at once at a time, again after a change, and later after a failure."""

import threading

from controller import workqueue
from controller.workqueue import FIRST_PAUSE, LONGEST_PAUSE, WorkQueue
from kybernate.testing.clock import FakeClock


def test_a_key_added_twice_is_taken_once() -> None:
    queue: WorkQueue[str] = WorkQueue(FakeClock())
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert (queue.take(), queue.take(), len(queue)) == ("a", "b", 0)


def test_a_key_that_changes_while_it_is_worked_on_is_worked_on_again() -> None:
    queue: WorkQueue[str] = WorkQueue(FakeClock())
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    assert len(queue) == 0, "nobody else may take it meanwhile"
    queue.done("a")
    assert queue.take() == "a"


def test_a_key_for_later_is_taken_when_its_time_has_come() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add_after("later", 10)
    queue.add("now")
    assert queue.take() == "now"
    clock.advance(10)
    assert queue.take() == "later"


def test_looks_at_one_key_never_multiply() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    for seconds in (30, 10, 20, 10):
        queue.add_after("a", seconds)
    assert len(queue) == 1
    clock.advance(30)
    assert queue.take() == "a"
    queue.done("a")
    assert len(queue) == 0


def test_pauses_double_after_each_failure_and_start_again_after_a_success() -> None:
    queue: WorkQueue[str] = WorkQueue(FakeClock())
    pauses = [queue.failed("a") for _ in range(40)]
    assert pauses[:3] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]
    assert pauses[-1] == LONGEST_PAUSE
    queue.succeeded("a")
    assert queue.failed("a") == FIRST_PAUSE


def test_a_key_that_fails_stops_nobody_and_is_tried_again() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    looked: list[str] = []

    def look(key: str) -> None:
        looked.append(key)
        if looked.count("bad") == 2:
            queue.close()
        elif key == "bad":
            raise ValueError(key)

    def troubled(_key: str, _trouble: Exception, pause: float) -> None:
        clock.advance(pause)

    queue.add("bad")
    queue.add("good")
    workqueue.work(queue, look, troubled)
    assert looked == ["bad", "good", "bad"]


def test_closing_ends_everybody_who_waits() -> None:
    queue: WorkQueue[str] = WorkQueue(FakeClock())
    thread = threading.Thread(target=queue.take)
    thread.start()
    queue.close()
    thread.join(10)
    assert not thread.is_alive()
