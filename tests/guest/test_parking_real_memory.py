"""Contents leave the card and come back, whichever way the program asked for its memory."""

import pytest

from nodeagent.mechanisms import NotPossible

MIB = 2**20


def test_contents_come_back_as_they_were_and_the_card_is_empty_meanwhile(node):
    with node.program() as told:
        sizes = [5 * MIB, 2 * MIB, 1000, 70_000, 12 * MIB, 1]
        memory = [(told.alloc(size), size, seed) for seed, size in enumerate(sizes)]
        for one in memory:
            told.fill(*one)
        used = node.card.used
        slot, kept = node.park(told)
        assert node.card.used <= used - 21 * MIB
        node.resume(told, slot, kept)
        assert all(told.holds(*one) for one in memory)


def test_a_call_waits_at_the_gate_while_its_workload_is_parked_and_then_goes_on(node):
    with node.program() as told:
        at = told.alloc(3 * MIB)
        told.fill(at, 3 * MIB, 1)
        slot, kept = node.park(told)
        waiting = told.later("holds", at, 3 * MIB, 1)
        node.resume(told, slot, kept)
        assert waiting.answer() is True


def test_threads_that_allocate_all_the_time_are_parked_between_two_calls(node):
    with node.program() as told:
        at = told.alloc(3 * MIB)
        told.fill(at, 3 * MIB, 1)
        told.churn(3)
        for _ in range(3):
            slot, kept = node.park(told)
            node.resume(told, slot, kept)
        assert told.holds(at, 3 * MIB, 1)
        assert told.churned()["wrong"] == 0
        assert told.churned()["rounds"] > 0


def test_small_allocations_share_segments_and_know_their_own_sizes(node):
    with node.program() as told:
        before = node.card.used
        small = [told.alloc(1000) for _ in range(500)]
        assert node.card.used - before == 2 * MIB
        assert told.range_of(small[7] + 10) == [small[7], 1000]
        for at in small:
            told.free(at)
        with pytest.raises(RuntimeError):
            told.free(small[0])


def test_memory_freed_and_allocated_after_a_resume_is_like_any_other(node):
    with node.program() as told:
        at = told.alloc(5 * MIB)
        slot, kept = node.park(told)
        node.resume(told, slot, kept)
        told.free(at)
        again = told.alloc(5 * MIB)
        told.fill(again, 5 * MIB, 2)
        slot, kept = node.park(told)
        node.resume(told, slot, kept)
        assert told.holds(again, 5 * MIB, 2)


def test_stream_ordered_memory_leaves_too_and_is_used_again(node):
    with node.program() as told:
        at = told.alloc_in_order(4 * MIB)
        told.fill(at, 4 * MIB, 3)
        told.free_in_order(told.alloc_in_order(6 * MIB))
        slot, kept = node.park(told)
        node.resume(told, slot, kept)
        assert told.holds(at, 4 * MIB, 3)
        used = node.card.used
        told.free_in_order(told.alloc_in_order(6 * MIB))
        assert node.card.used == used


def test_physical_memory_of_the_program_s_own_keeps_its_handle_and_its_address(node):
    with node.program() as told:
        handle = told.create(4 * MIB)
        at = told.map_(handle, 4 * MIB)
        told.fill(at, 4 * MIB, 4)
        used = node.card.used
        slot, kept = node.park(told)
        assert node.card.used <= used - 4 * MIB
        node.resume(told, slot, kept)
        assert told.holds(at, 4 * MIB, 4)
        told.unmap(at, 4 * MIB)
        assert told.map_(handle, 4 * MIB)
        told.release(handle)


def test_a_handle_released_while_it_is_mapped_is_what_frees_its_memory_when_unmapped(node):
    with node.program() as told:
        before = node.card.used
        handle = told.create(4 * MIB)
        at = told.map_(handle, 4 * MIB)
        told.release(handle)
        told.fill(at, 4 * MIB, 4)
        slot, kept = node.park(told)
        node.resume(told, slot, kept)
        assert told.holds(at, 4 * MIB, 4)
        told.unmap(at, 4 * MIB)
        assert node.card.used == before


def test_what_cannot_leave_stays_in_place_and_is_named(node):
    with node.program() as told:
        shared = told.create(2 * MIB)
        at = told.map_(shared, 2 * MIB)
        told.fill(at, 2 * MIB, 6)
        told.share(shared)
        stays = told.managed(1000)
        told.fill(stays, 1000, 7)
        slot, kept = node.park(told)
        left = node.mechanism.left(told.body)
        assert left == (
            "1 1000 managed memory",
            f"1 {2 * MIB} memory shared with other processes",
        )
        node.resume(told, slot, kept)
        assert told.holds(at, 2 * MIB, 6)
        assert told.holds(stays, 1000, 7)


def test_the_old_calls_share_memory_between_two_guests(node):
    with node.program() as giving, node.program() as taking:
        at = giving.alloc(3 * MIB)
        giving.fill(at, 3 * MIB, 8)
        opened = taking.open_ticket(giving.ticket(at))
        assert taking.holds(opened, 3 * MIB, 8)
        taking.fill(opened, 3 * MIB, 9)
        assert giving.holds(at, 3 * MIB, 9)
        taking.close_ticket(opened)
        with pytest.raises(RuntimeError):
            taking.open_ticket([*giving.ticket(at)[:8], *[0] * 56])


def test_a_forked_child_is_a_guest_of_its_own_and_the_parent_parks_on(node):
    with node.program() as told:
        at = told.alloc(3 * MIB)
        told.fill(at, 3 * MIB, 1)
        assert told.fork() == "right"
        slot, kept = node.park(told)
        node.resume(told, slot, kept)
        assert told.fork() == "right"
        assert told.holds(at, 3 * MIB, 1)


def test_a_workload_that_has_not_used_the_card_yet_is_held_and_let_go(node):
    with node.program() as told:
        slot, kept = node.park(told)
        assert kept == ()
        node.resume(told, slot, kept)
        assert told.alloc(1000)


def test_the_gate_does_not_open_over_memory_that_is_not_there(node):
    with node.program() as told:
        at = told.alloc(3 * MIB)
        told.fill(at, 3 * MIB, 1)
        slot, kept = node.park(told)
        with pytest.raises(NotPossible, match="not whole"):
            node.mechanism.unlock(told.body, 5.0)
        node.resume(told, slot, kept)
        assert told.holds(at, 3 * MIB, 1)


def test_many_allocations_of_one_size_share_segments_and_hold_back_little(node):
    with node.program() as told:
        before = node.card.used
        many = [told.alloc(2 * MIB) for _ in range(60)]
        for seed, at in enumerate(many):
            told.fill(at, 1000, seed)
        assert told.range_of(many[50] + 5) == [many[50], 2 * MIB]
        (part,) = node.mechanism.parts(told.body)
        assert 60 * 2 * MIB <= part.size <= 1.25 * 60 * 2 * MIB
        assert part.content < 20 * 60
        slot, kept = node.park(told)
        node.resume(told, slot, kept)
        assert all(told.holds(at, 1000, seed) for seed, at in enumerate(many))
        for at in many:
            told.free(at)
        assert node.card.used == before


def test_where_no_shared_segment_fits_an_allocation_has_its_own(node):
    with node.program() as told:
        assert told.alloc_many(4 * MIB, 30) == 30
        size = node.card.size
        node.card.resize(node.card.used + 4 * MIB)
        try:
            told.alloc_many(4 * MIB, 50)
            assert node.card.used == node.card.size
        finally:
            node.card.resize(size)


def test_calls_into_the_driver_are_counted_and_asking_stops_nobody(node, eventually):
    with node.program() as told:
        at = told.alloc(3 * MIB)
        eventually(lambda: node.mechanism.here(told.body))
        (before,) = node.mechanism.calls(told.body)
        (still,) = node.mechanism.calls(told.body)
        told.fill(at, 3 * MIB, 1)
        (after,) = node.mechanism.calls(told.body)
        assert still == before, "asking is no call"
        assert after.ever > before.ever > 0
        assert after.inside == 0
        assert node.mechanism.here(told.body)
