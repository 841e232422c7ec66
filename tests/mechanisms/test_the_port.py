"""
The one contract of all mechanisms: what the stories may rely on, whatever moves the contents.

On the simulated card, and on the driver in C that stands in for a real one.
"""

import pytest

from nodeagent.disk.pool import Damaged
from nodeagent.mechanisms import BodyGone, NotPossible, NotYet

KINDS = {
    "simulated": ("testbed.models",),
    "vllm-sleep": ("testbed.vllm", "--enable-sleep-mode"),
    "guest": ("guest",),
    "driver": ("driver",),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def node(kind, request):
    return request.getfixturevalue("simulated" if "." in KINDS[kind][0] else "cuda")


@pytest.fixture(scope="module")
def program(kind, node):
    """A server, parked and resumed by the mechanism it asks for."""
    made = node.start(*KINDS[kind])
    assert made.ask()[1]
    yield made
    made.process.kill()
    made.process.wait()


def test_contents_come_back_as_they_were_and_the_card_is_empty_meanwhile(node, program):
    counter, _ = program.ask()
    before = node.used
    slot, kept = node.park(program.body)
    assert node.used <= before - sum(one.size for one in kept)
    assert sum(one.size for one in kept) >= node.size - 2**20
    node.resume(program.body, slot, kept)
    assert program.ask() == (counter + 1, True)
    assert node.used == before


def test_a_request_waits_while_its_workload_is_parked_and_is_answered_then(node, program, later):
    counter, _ = program.ask()
    slot, kept = node.park(program.body)
    asked = later(program.ask)
    assert not asked.ended
    node.resume(program.body, slot, kept)
    assert asked.answer() == (counter + 1, True)


def test_every_step_may_be_done_again(node, program):
    body = program.body
    node.mechanism.lock(body, 60)
    node.mechanism.lock(body, 60)
    slot, kept = node.copy_out(body)
    parts = node.mechanism.parts(body)
    for part in (*parts, *parts):
        node.mechanism.release(body, part, 60)
    for one in (*kept, *kept):
        assert node.mechanism.copy_in(body, one, slot, lambda _: None) == one.digest
    node.mechanism.unlock(body, 60)
    node.mechanism.unlock(body, 60)
    assert program.ask()[1]


def test_parking_undone_before_the_release_lets_it_go_on(node, program):
    counter, _ = program.ask()
    node.mechanism.lock(program.body, 60)
    node.copy_out(program.body)
    node.mechanism.unlock(program.body, 60)
    assert program.ask() == (counter + 1, True)


def test_parts_that_are_away_are_told_as_not_backed_under_the_same_names(node, program):
    slot, kept = node.park(program.body)
    parts = node.mechanism.parts(program.body)
    assert {part.name for part in parts} == {one.name for one in kept}
    assert not any(part.backed or part.digest for part in parts)
    node.resume(program.body, slot, kept)


def test_an_agent_that_dies_leaves_it_parked_and_the_next_one_resumes_it(node, program):
    counter, _ = program.ask()
    slot, kept = node.park(program.body)
    node.restart()
    assert not any(part.backed for part in node.mechanism.parts(program.body))
    node.resume(program.body, slot, kept)
    assert program.ask() == (counter + 1, True)


def test_the_bytes_that_moved_are_told(node, program):
    slot, kept = node.park(program.body)
    moved = []
    node.freezer.thaw(program.body.pid, "")
    for one in kept:
        node.mechanism.copy_in(program.body, one, slot, moved.append)
    node.mechanism.unlock(program.body, 60)
    assert sum(moved) == sum(one.size for one in kept)


def test_a_slot_that_lost_a_part_is_damaged_and_nothing_is_opened(node, program):
    slot, kept = node.park(program.body)
    lists = [path for path in slot.folder.iterdir() if path.suffix in (".part", ".copy")]
    hidden = {path: path.read_bytes() for path in lists}
    for path in hidden:
        path.unlink()
    node.freezer.thaw(program.body.pid, "")
    with pytest.raises(Damaged):
        node.mechanism.copy_in(program.body, kept[0], slot, lambda _: None)
    for path, content in hidden.items():
        path.write_bytes(content)
    node.resume(program.body, slot, kept)
    assert program.ask()[1]


def test_who_has_ended_is_gone(node, kind, program):
    made = node.start(*KINDS[kind], vram="1Gi")
    made.ask()
    slot, kept = node.park(made.body, freeze=False)
    made.process.kill()
    made.process.wait()
    with pytest.raises((BodyGone, NotYet, NotPossible)):
        node.mechanism.copy_in(made.body, kept[0], slot, lambda _: None)
    node.mechanism.forget(made.body)
    node.mechanism.forget(made.body)
