"""
Ranks that run any program without a deadlock come to stand where every call has its counterparts.
Faked: the ranks, as lists of calls that a chance decides the pace of.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from nodeagent.mechanisms.collectives import Line, Standing, course, elsewhere

GROUPS = {1: (0, 1), 2: (2, 3), 3: (0, 2), 4: (0, 1, 2, 3)}  # communicators
PAIRS = {(0, 2): 12, (1, 3): 13, (2, 0): 20}  # directions


def a_program(calls):
    """What each of four ranks calls, in its order: lists of keys that one call starts."""
    ranks = [[], [], [], []]
    for call in calls:
        if call in GROUPS:
            for rank in GROUPS[call]:
                ranks[rank].append([call])
        else:
            for rank in call:
                ranks[rank].append([PAIRS[call]])
    return ranks


class Rank:
    """As a guest holds it."""

    def __init__(self, number, calls):
        self.number, self.calls, self.at = number, calls, 0
        self.started = {key: 0 for key, who in GROUPS.items() if number in who}
        self.targets = None

    def step(self):
        if self.at < len(self.calls) and self.may():
            for key in self.calls[self.at]:
                self.started[key] = self.started.get(key, 0) + 1
            self.at += 1

    def may(self):
        if self.targets is None:
            return True
        return all(
            self.started.get(key, 0) < self.targets.get(key, 0) for key in self.calls[self.at]
        )

    def hold(self):
        self.targets = dict(self.started)

    def standing(self):
        held = set(self.calls[self.at]) if self.at < len(self.calls) and not self.may() else set()
        keys = set(self.started) | held
        return Standing(pid=self.number, lines=[self._line(key, key in held) for key in keys])

    def _line(self, key, held):
        started = self.started.get(key, 0)
        between = key > 10
        if between:
            pair = next(pair for pair, name in PAIRS.items() if name == key)
            member, members = int(pair[1] == self.number), 2
        else:
            member, members = GROUPS[key].index(self.number), len(GROUPS[key])
        return Line(
            key=key, member=member, members=members, started=started,
            wanted=started + 1 if held else 0, between=between,
        )  # fmt: skip


def stopped(ranks, chance):
    for _ in range(5000):
        found = course([rank.standing() for rank in ranks])
        if found.stopped:
            return True
        for rank in ranks:
            for key, target in found.targets.items():
                rank.targets[key] = max(target, rank.targets.get(key, 0))
        for _ in range(3):
            chance.choice(ranks).step()
    return False


@given(
    calls=some.lists(some.sampled_from([*GROUPS, *PAIRS]), max_size=60),
    seed=some.integers(0, 2**16),
    pace=some.integers(0, 200),
)
def test_every_call_has_its_counterparts_where_they_stop(calls, seed, pace):
    chance = random.Random(seed)
    ranks = [Rank(number, calls) for number, calls in enumerate(a_program(calls))]
    for _ in range(pace):
        chance.choice(ranks).step()
    for rank in ranks:
        rank.hold()
    assert stopped(ranks, chance)
    for key in GROUPS:
        assert len({ranks[number].started[key] for number in GROUPS[key]}) == 1
    for (one, other), key in PAIRS.items():
        assert ranks[one].started.get(key, 0) == ranks[other].started.get(key, 0)


def line(started, **more):
    return Line(**{"key": 1, "member": 0, "members": 2, "started": started} | more)


def test_ranks_that_are_level_stand():
    both = [Standing(pid=1, lines=[line(7)]), Standing(pid=2, lines=[line(7, member=1)])]
    assert course(both).stopped


def test_one_that_is_behind_may_go_on_to_where_the_first_one_is():
    both = [Standing(pid=1, lines=[line(7)]), Standing(pid=2, lines=[line(5, member=1)])]
    found = course(both)
    assert not found.stopped
    assert found.targets == {1: 7}
    assert "process 2 made 5" in found.why


@pytest.mark.parametrize("busy", [{"inside": 1}, {"setting_up": 1}])
def test_one_in_the_middle_of_a_call_is_waited_for(busy):
    both = [Standing(pid=1, lines=[line(7)]), Standing(pid=2, lines=[line(7, member=1)], **busy)]
    assert not course(both).stopped


def test_one_that_left_a_communicator_owes_nothing_there():
    left = line(5, member=1, ended=True)
    assert course([Standing(pid=1, lines=[line(5)]), Standing(pid=2, lines=[left])]).stopped


def test_a_communicator_with_ranks_elsewhere_never_stands_and_is_counted():
    here = [Standing(pid=1, lines=[line(5, members=4)])]
    assert not course(here).stopped
    assert "of 4 ranks" in course(here).why
    assert elsewhere(here) == 1


def test_a_communicator_that_is_just_made_is_not_called_one_with_ranks_elsewhere():
    assert elsewhere([Standing(pid=1, lines=[line(0)], setting_up=1)]) == 0
