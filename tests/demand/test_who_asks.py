"""Which of a workload's sockets ask for it. Pure."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.model.callers import NOBODY, Callers
from nodeagent.demand import conversations
from nodeagent.demand.conversations import LEFT_S, Ask, Patience
from nodeagent.demand.sockdiag import Socket, Tcp

LISTENER, MINE = 100, frozenset({100, 101, 102})


def a_socket(**facts: Any) -> Socket:
    """A connection to port 8000 that was accepted, answered and is kept."""
    whole: dict[str, Any] = {
        "cookie": 7, "state": Tcp.ESTABLISHED, "port": 8000, "peer": "10.0.0.7", "unread": 0,
        "most": 0, "inode": 101, "received": 30, "sent": 2, "sent_ago": 5.0, "received_ago": 5.1,
    }  # fmt: skip
    return Socket(**{**whole, **facts})


def a_listener(**facts: Any) -> Socket:
    """At port 8000, with nobody in its queue."""
    whole = {"state": Tcp.LISTEN, "inode": LISTENER, "most": 5, "peer": "0.0.0.0", "cookie": 1}
    return a_socket(**{**whole, **facts})


def whys(*sockets: Socket, ignored: Callers = NOBODY) -> list[str]:
    """What asks, in words."""
    own = conversations.own((a_listener(), *sockets), MINE, frozenset())
    return [ask.why for ask in conversations.asks(own, ignored)]


def test_a_connection_that_nobody_accepted_asks() -> None:
    waiting = a_socket(inode=0, received=0, sent_ago=1.0, received_ago=1.0)
    assert whys(waiting) == ["a connection from 10.0.0.7 at port 8000 is not accepted"]


def test_bytes_that_nobody_read_ask() -> None:
    assert whys(a_socket(unread=83)) == ["83 bytes from 10.0.0.7 at port 8000 are not read"]


def test_a_client_that_spoke_last_asks() -> None:
    assert whys(a_socket(sent_ago=9.0, received_ago=2.0)) == [
        "a client from 10.0.0.7 at port 8000 has no answer"
    ]


@pytest.mark.parametrize(
    "silent",
    [
        pytest.param(a_socket(), id="answered and kept"),
        pytest.param(a_socket(received=0, sent=0, sent_ago=3.0, received_ago=3.0), id="never used"),
        pytest.param(a_socket(state=Tcp.CLOSE_WAIT, unread=1), id="ended and kept"),
        pytest.param(
            a_socket(state=Tcp.CLOSE_WAIT, inode=0, unread=1), id="came and went without a word"
        ),
        pytest.param(a_socket(inode=555, unread=9), id="another process's"),
        pytest.param(a_socket(port=53000, unread=9), id="made by the workload itself"),
        pytest.param(a_socket(inode=0, port=9999), id="to a sidecar's port"),
        pytest.param(a_listener(unread=1), id="a queue with one that was reset"),
    ],
)
def test_who_wants_nothing_does_not_ask(silent: Socket) -> None:
    assert whys(silent) == []


def test_who_sent_all_and_closed_its_side_asks_still() -> None:
    assert whys(a_socket(state=Tcp.CLOSE_WAIT, unread=84)) == [
        "83 bytes from 10.0.0.7 at port 8000 are not read"
    ]


def test_a_full_accept_queue_asks_for_those_nobody_can_see() -> None:
    full = conversations.own((a_listener(unread=6),), MINE, frozenset())
    assert [ask.why for ask in conversations.asks(full, NOBODY)] == [
        "the accept queue of port 8000 is full"
    ]


@pytest.mark.parametrize(
    "ignored",
    [
        Callers(networks=(ipaddress.ip_network("10.0.0.0/24"),)),
        Callers(ports=frozenset({8000})),
    ],
    ids=["by address", "by port"],
)
def test_scrapers_that_policy_ignores_do_not_ask(ignored: Callers) -> None:
    assert whys(a_socket(unread=9), a_socket(inode=0), ignored=ignored) == []
    own = conversations.own((a_listener(), a_socket()), MINE, frozenset())
    assert conversations.quiet_for(own, ignored) is None


@pytest.mark.parametrize(
    ("socket", "doubt"),
    [
        pytest.param(a_socket(sent=0, sent_ago=3.0, received_ago=3.0), False, id="its first words"),
        pytest.param(a_socket(sent_ago=3.0, received_ago=3.0), True, id="in one tick"),
        pytest.param(a_socket(sent_ago=3.004, received_ago=3.0), False, id="a tick later"),
    ],
)
def test_who_spoke_in_the_tick_of_an_answer_may_have_been_answered(
    socket: Socket, doubt: bool
) -> None:
    own = conversations.own((a_listener(), socket), MINE, frozenset())
    (ask,) = conversations.asks(own, NOBODY)
    assert (ask.owed, ask.doubt) == (True, doubt)


def test_a_port_whose_listener_is_gone_is_remembered() -> None:
    own = conversations.own((a_socket(unread=9),), MINE, frozenset({8000}))
    assert len(list(conversations.asks(own, NOBODY))) == 1


def test_what_is_left_alone_for_long_asks_no_more_until_something_comes() -> None:
    ask, patience = Ask(7, 30, ""), Patience()
    for _ in range(int(LEFT_S) + 1):
        patience = patience.after([ask], 1.0)
    assert patience.over(ask)
    assert not patience.over(Ask(7, 31, "")), "a byte more"
    assert not patience.over(Ask(8, 30, "")), "another connection"
    assert not patience.after([], 1.0).kept, "gone, and forgotten"


spans = st.floats(0, 10)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), spans), max_size=60))
def test_nothing_is_given_up_before_it_was_left_alone_for_long_enough(
    story: list[tuple[int, int, float]],
) -> None:
    patience, still = Patience(), dict.fromkeys(range(4), (-1, 0.0))
    for cookie, position, seconds in story:
        here = {other: Ask(other, still[other][0], "") for other in still if still[other][0] >= 0}
        here[cookie] = Ask(cookie, position, "")
        patience = patience.after(here.values(), seconds)
        for ask in here.values():
            was, so_far = still[ask.cookie]
            moved = was not in (ask.position, -1)
            still[ask.cookie] = (ask.position, 0.0 if moved else so_far + seconds)
            assert patience.over(ask) == (still[ask.cookie][1] >= LEFT_S)
