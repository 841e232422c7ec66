"""A shared link: whoever yields moves nothing while somebody hurries."""

import threading
from collections.abc import Callable

import pytest

from kybernate.runtime.clock import SystemClock
from kybernate.stores.link import Link, Yielding
from kybernate.stores.ram import Ram


class NoMore(Exception):
    """Nobody waits any longer."""


@pytest.fixture
def ram() -> Ram:
    made = Ram(2**20, SystemClock().now)
    made.put("a", b"x")
    return made


@pytest.mark.parametrize(
    "move", [lambda store: store.put("b", b"y"), lambda store: store.get("a")], ids=["put", "get"]
)
def test_what_yields_waits_until_nobody_hurries(
    ram: Ram, move: Callable[[Yielding], object]
) -> None:
    link, looked, over = Link(), threading.Event(), threading.Event()

    def work() -> None:
        move(Yielding(ram, link, looked.set))
        over.set()

    with link.hurried():
        with link.hurried():
            thread = threading.Thread(target=work)
            thread.start()
            assert looked.wait(30)  # it waits, and looks whether to go on
        looked.clear()
        assert looked.wait(30)  # one of two is gone: it waits still
        assert not over.is_set()
    assert over.wait(30)
    thread.join()


def test_what_moves_nothing_does_not_wait(ram: Ram) -> None:
    link = Link()
    store = Yielding(ram, link)
    with link.hurried():
        assert store.stat("a").size == 1
        assert [one.key for one in store.list()] == ["a"]
        assert store.delete("a")


def test_who_does_not_want_to_wait_any_longer_is_let_go(ram: Ram) -> None:
    link = Link()

    def no_more() -> None:
        raise NoMore

    with link.hurried(), pytest.raises(NoMore):
        Yielding(ram, link, no_more).put("b", b"y")
