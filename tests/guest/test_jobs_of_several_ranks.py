"""
Jobs whose ranks wait for each other on their cards are stopped at one place and parked as one.

Real: all of the guest, the workers, the mechanism, processes that are ranks. Faked: the driver with
two cards, and a libnccl over it (testbed/fakenccl). Observed: that no rank goes on alone, contents,
and what is refused and how.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from threading import Event, Thread

import pytest

from kybernate.testing.agentnode import wait_for
from nodeagent.mechanisms import BodyGone, NotPossible, NotYet, halting
from nodeagent.mechanisms.guestwire import Verb
from nodeagent.mechanisms.real import Real
from testbed import fakecuda, fakenccl

MIB = 2**20
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def node(libraries, node_on):
    """An agent with two cards."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-2-"))
    made = node_on(folder, libraries, cards=2)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def job(node):
    """Two ranks with memory and one communicator."""
    with node.job() as made:
        made.places = made.each("alloc", 5 * MIB)
        for number, rank in enumerate(made.ranks):
            rank.fill(made.places[number], 5 * MIB, number)
        made.join()
        yield made


def whole(job):
    return all(
        rank.holds(job.places[number], 5 * MIB, number) for number, rank in enumerate(job.ranks)
    )


def standing(node, job):
    return halting.standings(node.mechanism.guests(job.body))


def started(node, job):
    """How many collectives of the first communicator each rank started."""
    return [one.lines[0].started for one in standing(node, job)]


class Locking(Thread):
    """A park's first step, in the background."""

    def __init__(self, node, job, limit=PATIENCE_S):
        super().__init__(daemon=True)
        self._node, self._job, self._limit = node, job, limit
        self.error = None
        self.start()

    def run(self):
        try:
            self._node.mechanism.lock(self._job.body, self._limit)
        except Exception as error:
            self.error = error

    def ended(self):
        self.join(PATIENCE_S)
        assert not self.is_alive()
        if self.error:
            raise self.error


def holding(node, job):
    """Wait until every rank is held."""

    def all_hold():
        answers = [guest.ask(Verb.COUNTS, 5.0)[0] for guest in node.mechanism.guests(job.body)]
        return all(answer.counts.holding for answer in answers)

    wait_for(all_hold, "the ranks are held")


@pytest.mark.parametrize("ahead", [1, 40], ids=["waiting-each-step", "far-ahead"])
def test_ranks_under_load_are_parked_and_resumed_again_and_again(node, job, ahead):
    for number, rank in enumerate(job.ranks):
        rank.train(100 * number, ahead)
    for _ in range(5):
        job.goes_on()
        slot, kept = node.park(job)
        assert len({one.uuid for one in kept}) == 2
        assert len(set(started(node, job))) == 1
        node.resume(job, slot, kept)
    assert whole(job)
    assert [told["wrong"] for told in job.each("trained")] == [0, 0]


def test_a_rank_that_is_behind_may_come_to_where_the_other_is_and_no_further(node, job):
    first, second = job.ranks
    for _ in range(3):
        first.all_reduce()
    second.all_reduce()
    locking = Locking(node, job)
    holding(node, job)
    held = first.later("all_reduce")  # its fourth
    second.all_reduce()
    second.all_reduce()
    locking.ended()
    assert started(node, job) == [3, 3]
    assert not held.answers
    node.mechanism.unlock(job.body, PATIENCE_S)
    held.answer()
    second.all_reduce()
    job.each("synchronize")


def test_a_rank_that_never_comes_costs_the_limit_and_the_job_goes_on(node, job):
    first, second = job.ranks
    first.all_reduce()
    behind = job.pids[1]
    with pytest.raises(NotYet, match=f"process {behind} made 0 of its calls"):
        node.mechanism.lock(job.body, 0.5)
    first.all_reduce()  # not held any more
    second.all_reduce()
    second.all_reduce()
    job.each("synchronize")
    assert started(node, job) == [2, 2]


def test_a_rank_killed_while_it_is_held_leaves_the_others_free(node, job):
    first = job.ranks[0]
    first.all_reduce()
    locking = Locking(node, job)
    holding(node, job)
    held = first.later("all_reduce")
    os.kill(job.pids[1], signal.SIGKILL)
    with pytest.raises((BodyGone, NotYet)):
        locking.ended()
    held.answer()


def test_an_agent_that_dies_while_it_holds_lets_the_job_go_on(node, job):
    first, second = job.ranks
    first.all_reduce()
    locking = Locking(node, job)
    holding(node, job)
    held = first.later("all_reduce")
    node.restart()
    held.answer()
    with pytest.raises((NotYet, BodyGone)):
        locking.ended()
    second.all_reduce()
    second.all_reduce()
    job.each("synchronize")
    assert whole(job)


def test_guests_let_go_by_themselves_when_an_agent_does_not_go_on(node, job):
    guests = node.mechanism.guests(job.body)
    for guest in guests:
        guest.ask(Verb.HOLD, 0.3)
    held = job.ranks[0].later("all_reduce")
    Event().wait(0.1)
    assert not held.answers
    held.answer()
    answer, _ = guests[0].ask(Verb.CLOSE, 1.0)
    assert "let go" in answer.why
    for guest in guests:
        guest.ask(Verb.OPEN, 1.0)
    job.ranks[1].all_reduce()
    job.each("synchronize")


def test_a_group_is_one_call_held_as_a_whole(node, job):
    first, second = job.ranks
    group = [["ncclSend", 0, 1], ["ncclRecv", 0, 1], ["all_reduce", 0]]
    first.together(*group)
    locking = Locking(node, job)
    holding(node, job)
    held = first.later("together", *group)
    second.together(["ncclRecv", 0, 0], ["ncclSend", 0, 0], ["all_reduce", 0])
    locking.ended()
    for one in standing(node, job):
        assert [line.started for line in one.lines] == [1, 1, 1]
    assert not held.answers
    node.mechanism.unlock(job.body, PATIENCE_S)
    held.answer()
    second.together(["ncclRecv", 0, 0], ["ncclSend", 0, 0], ["all_reduce", 0])
    job.each("synchronize")


def test_a_send_whose_receiver_was_never_seen_is_waited_for(node, job):
    first, second = job.ranks
    first.send_to(1)
    locking = Locking(node, job)
    holding(node, job)
    second.receive_from(0)
    locking.ended()
    node.mechanism.unlock(job.body, PATIENCE_S)
    job.each("synchronize")


def test_to_launch_a_graph_is_to_start_what_it_holds(node, job):
    first, second = job.ranks
    job.each("graph_of", 3)
    assert started(node, job) == [0, 0]
    first.launch(0)
    locking = Locking(node, job)
    holding(node, job)
    held = first.later("launch", 0)
    second.launch(0)
    locking.ended()
    assert started(node, job) == [3, 3]
    assert not held.answers
    node.mechanism.unlock(job.body, PATIENCE_S)
    held.answer()
    second.launch(0)
    job.each("synchronize")


def test_communicators_that_differ_are_each_brought_to_one_place(node):
    with node.job(4) as job:
        world = job.join()
        assert world == [0, 0, 0, 0]
        for number, rank in enumerate(job.ranks):
            rank.send("split", 0, number // 2, number)
        assert [rank.receive() for rank in job.ranks] == [1, 1, 1, 1]
        one, two, _, four = job.ranks
        one.all_reduce(1)  # with its neighbour, which has something else to do before it
        locking = Locking(node, job)
        holding(node, job)
        two.send_to(3)
        two.all_reduce(1)
        four.receive_from(1)
        locking.ended()
        node.mechanism.unlock(job.body, PATIENCE_S)
        job.each("synchronize")
        assert all(not line.wanted for one in standing(node, job) for line in one.lines)


def test_clocks_stand_still_from_the_first_word_to_the_last(node, job):
    before = job.each("steady")
    slot, kept = node.park(job)
    began = time.monotonic()
    first = job.each("steady")
    Event().wait(1.0)
    assert job.each("steady") == first
    node.resume(job, slot, kept)
    held = time.monotonic() - began
    gone_by = [now - then for now, then in zip(job.each("steady"), first, strict=True)]
    assert all(0 <= one < held - 0.9 for one in gone_by)
    assert all(one < two for one, two in zip(before, first, strict=True))


def test_a_job_is_resumed_as_one_or_not_at_all(node, job):
    slot, kept = node.park(job)
    node.mechanism.copy_in(job.body, kept[0], slot, lambda _: None)
    with pytest.raises(NotPossible, match="all gates stay closed"):
        node.mechanism.unlock(job.body, PATIENCE_S)
    held = [rank.later("all_reduce") for rank in job.ranks]
    Event().wait(0.1)
    assert not any(one.answers for one in held)
    node.resume(job, slot, kept)
    for one in held:
        one.answer()
    assert whole(job)


@pytest.mark.crash
def test_an_agent_that_dies_leaves_the_job_parked_for_the_next_one(node, job):
    slot, kept = node.park(job)
    node.restart()
    node.resume(job, slot, kept)
    assert whole(job)


def test_ranks_in_another_workload_are_named(node):
    with node.job() as one, node.job() as other:
        unique = one.ranks[0].unique_id()
        ranks = [*one.ranks, *other.ranks]
        for number, rank in enumerate(ranks):
            rank.send("join", unique, 4, number)
        for rank in ranks:
            rank.receive()
        assert "1 0 communicators with ranks elsewhere" in node.mechanism.left(one.body)


def test_a_second_nccl_in_a_process_is_named(node, job, tmp_path):
    copy = tmp_path / "libnccl.so.2"
    shutil.copy(fakenccl.build() / fakenccl.LIBRARY, copy)
    job.ranks[0].load_another_nccl(str(copy))
    assert "1 0 functions of a second NCCL" in node.mechanism.left(job.body)
    assert job.ranks[0].all_reduce() is None
    job.ranks[1].all_reduce()
    job.each("synchronize")


def test_memory_of_another_rank_that_is_not_nccl_s_keeps_the_job_from_being_parked(node, job):
    first, second = job.ranks
    second.open_ticket(first.ticket(job.places[0]))
    real = Real(node.mechanism, None)
    with pytest.raises(NotPossible, match="custom all-reduce"):
        real.lock(job.body, PATIENCE_S)
    job.each("all_reduce")
    job.each("synchronize")


@pytest.fixture(scope="module")
def waits(libraries):
    """A C++ program linked to the driver and to NCCL."""
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler (g++)")
    nccl = fakenccl.build() / fakenccl.LIBRARY
    driver = libraries[1] / fakecuda.LIBRARY
    made = nccl.parent / "waits"
    source = Path(__file__).with_name("waits.cpp")
    command = ["g++", "-std=c++17", "-O1", "-pthread", str(source), str(nccl), str(driver)]
    subprocess.run([*command, "-o", str(made)], check=True)
    return made


def test_a_park_takes_no_time_to_a_cpp_program_and_its_waits_are_as_long_as_ever(node, waits):
    environment = {
        **node.environment,
        "LD_PRELOAD": str(node.library),
        "KYB_GUEST_SOCKET": str(node.folder / "g.sock"),
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([str(waits)], env=environment, text=True, **pipes) as process:
        told = type(node).told(process)

        def ask():
            process.stdin.write("\n")
            process.stdin.flush()
            return [float(word) for word in process.stdout.readline().split()]

        assert process.stdout.readline() == "ready\n"
        age, *before = ask()
        assert standing(node, told)[0].lines[0].started == 1
        node.mechanism.lock(told.body, PATIENCE_S)
        Event().wait(3.0)
        node.mechanism.unlock(told.body, PATIENCE_S)
        then, *after = ask()
        process.kill()
    assert then - age < 2.0
    assert all(0.19 <= one < 1.5 for one in (*before, *after)), (before, after)
