"""Who needs which chunk of the pool, and which chunks of a part have to be copied."""

import struct
from array import array
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from nodeagent.disk.pool import Damaged, NoRoom
from nodeagent.gpuworker import places
from nodeagent.gpuworker.driver import GRAIN
from nodeagent.gpuworker.fingerprints import KEY_SIZE, SIZE
from nodeagent.gpuworker.places import UNIT
from nodeagent.mechanisms import carrying, copies, differences
from nodeagent.mechanisms.chunks import Chunks
from nodeagent.mechanisms.copies import ZERO, Copy
from nodeagent.mechanisms.differences import FRESH
from nodeagent.mechanisms.slabs import Slabs

KEY = b"k" * KEY_SIZE
NULL = b"0" * SIZE


def print_of(number: int) -> bytes:
    return struct.pack("<2Q", number, number)


def prints_of(*numbers: int) -> bytes:
    return b"".join(print_of(one) for one in numbers)


def never() -> bool:
    return False


def chunks_in(folder: Path, slabs: int = 3, each: int = 4) -> Chunks:
    return Chunks(Slabs(folder, size=each * GRAIN), slabs * each * GRAIN)


class TestTaking:
    def test_few_slabs_are_made_and_chunks_stand_in_order(self, tmp_path: Path) -> None:
        chunks = chunks_in(tmp_path)
        assert chunks.take(3, -1, never) == [0, 1, 2]
        assert len(chunks.slabs.all()) == 1
        assert chunks.take(4, -1, never) == [4, 5, 6, 7]
        assert len(chunks.slabs.all()) == 2

    def test_a_chunk_is_free_when_the_last_one_who_needs_it_lets_it_go(
        self, tmp_path: Path
    ) -> None:
        chunks = chunks_in(tmp_path, slabs=1)
        taken = chunks.take(4, -1, never)
        chunks.hold(taken[:1])
        chunks.let(taken)
        assert chunks.take(3, -1, never) == [1, 2, 3]
        chunks.let([0])
        assert chunks.take(1, -1, never) == [0]

    def test_without_room_somebody_gives_up_something_or_it_is_refused(
        self, tmp_path: Path
    ) -> None:
        chunks = chunks_in(tmp_path, slabs=1)
        taken = chunks.take(4, -1, never)

        def give_up() -> bool:
            chunks.let(taken[:2])
            return True

        assert chunks.take(2, -1, give_up) == taken[:2]
        with pytest.raises(NoRoom, match="missing"):
            chunks.take(1, -1, never)

    def test_slabs_are_made_near_to_the_card_that_needs_them(self, tmp_path: Path) -> None:
        chunks = chunks_in(tmp_path)
        far = chunks.take(2, 0, never)
        near = chunks.take(2, 1, never)
        assert [slab.node for slab in chunks.slabs.all()] == [0, 1]
        assert {one // chunks.each for one in far} == {0}
        assert {one // chunks.each for one in near} == {1}

    def test_where_the_limit_has_no_room_for_a_near_one_a_far_one_will_do(
        self, tmp_path: Path
    ) -> None:
        chunks = chunks_in(tmp_path, slabs=1)
        chunks.take(1, 0, never)
        assert len(chunks.take(3, 1, never)) == 3

    @given(some.lists(some.tuples(some.integers(0, 3), some.integers(1, 5)), max_size=30))
    @settings(deadline=None)
    def test_nothing_is_given_out_twice_and_nothing_is_lost(
        self, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
    ) -> None:
        chunks = chunks_in(tmp_path_factory.mktemp("c"))
        held: list[list[int]] = []
        for what, count in steps:
            if what == 0 and held:
                chunks.let(held.pop(count % len(held)))
            elif what == 1 and held:
                held.append(list(held[count % len(held)]))
                chunks.hold(held[-1])
            else:
                try:
                    fresh = chunks.take(count, -1, never)
                except NoRoom:
                    assert 12 - len(set().union(*held)) < count
                    continue
                assert not set(fresh) & set().union(*held)
                held.append(fresh)
            assert chunks.used == len(set().union(*held))
        copy = Copy((), KEY, array("Q", (one for some in held for one in some)), b"")
        after = chunks_in(chunks.slabs.folder)
        after.begin(copy.places)
        assert after.used == chunks.used
        after.let(copy.places)
        assert after.used == 0
        assert len(after.take(12, -1, never)) == 12

    def test_what_a_chunk_contained_is_forgotten_with_it(self, tmp_path: Path) -> None:
        chunks = chunks_in(tmp_path)
        places = chunks.take(2, -1, never)
        chunks.learn(Copy((), KEY, array("Q", places), prints_of(1, 2)))
        assert chunks.alike(KEY, print_of(2)) == places[1]
        assert chunks.alike(b"K" * KEY_SIZE, print_of(2)) is None
        chunks.let([*places, places[1]])
        assert chunks.alike(KEY, print_of(2)) is None


class TestPressed:
    @given(at=some.integers(0, 2**40), size=some.integers(1, GRAIN // UNIT))
    def test_a_place_says_where_its_bytes_are(self, at: int, size: int) -> None:
        place = places.pressed(at, size)
        assert places.is_pressed(place)
        assert not places.is_pressed(ZERO)
        assert places.span(place) == (at, size)
        grains = places.grains(place)
        assert grains.start * GRAIN <= places.begins(place) < grains.start * GRAIN + GRAIN
        assert 0 <= grains.stop * GRAIN - places.begins(place) - places.size(place) < GRAIN

    def test_what_stands_in_two_is_held_by_both_and_frees_what_nobody_else_needs(
        self, tmp_path: Path
    ) -> None:
        chunks = chunks_in(tmp_path)
        first = chunks.take(3, -1, never)[0] * GRAIN // UNIT
        one, two, three = (places.pressed(first + n * 6000, 6000) for n in range(3))
        chunks.hold([one, two, two, three])
        chunks.let(range(3))
        assert chunks.used == 3
        chunks.let([one, two])
        assert chunks.used == 3  # two is needed once more, and begins where one ends
        chunks.let([two])
        assert chunks.used == 2
        chunks.let([three])
        assert chunks.used == 0

    def test_an_agent_that_comes_later_counts_the_same(self, tmp_path: Path) -> None:
        chunks = chunks_in(tmp_path)
        first = chunks.take(2, -1, never)[0] * GRAIN // UNIT
        held = [places.pressed(first, 5000), places.pressed(first + 5000, 5000), ZERO]
        later = chunks_in(tmp_path)
        assert later.are_there(held)
        later.begin(held)
        assert later.used == 2
        assert set(later.take(10, -1, never)).isdisjoint(range(2))

    def test_neighbours_are_taken_together_or_not_at_all(self, tmp_path: Path) -> None:
        chunks = chunks_in(tmp_path)
        taken = chunks.take(12, -1, never)
        chunks.let([1, 3, 5, 6])
        assert chunks.take_together(3) is None
        assert chunks.take_together(2) == 5
        assert chunks.used == len(taken) - 2


class TestSorting:
    def test_each_kind_of_chunk_goes_its_way(self) -> None:
        found = differences.sort(
            prints_of(1, 9, 3, 4) + NULL, [10, 11, 12, ZERO, 14], prints_of(1, 2, 3, 8, 5), NULL,
            {print_of(9): 20}.get,
        )  # fmt: skip
        assert found.places == [10, FRESH, 12, FRESH, ZERO]
        assert found.same == [10, 12]
        assert found.alike == [(1, 20)]

    def test_what_is_all_the_same_is_seen_at_once(self) -> None:
        def fail(_: bytes) -> int:
            raise AssertionError

        old = prints_of(1) + NULL
        assert differences.sort(old, [7, ZERO], old, NULL, fail).same == [7]

    @given(some.lists(some.one_of(some.integers(0, 12), some.sampled_from([ZERO, FRESH]))))
    def test_runs_and_zeros_are_all_chunks_once(self, places: list[int]) -> None:
        told: dict[int, int] = {}
        for chunk, place, count in differences.runs(places, 100):
            assert count > 0
            told |= {chunk + n: place + n for n in range(count)}
        for chunk, count in differences.zeros(places, 100):
            told |= {chunk + n: ZERO for n in range(count)}
        assert told == {100 + n: one for n, one in enumerate(places) if one != FRESH}

    def test_an_older_copy_is_known_by_address_and_key(self) -> None:
        old = Copy(((1, 100, GRAIN), (2, 500, 2 * GRAIN)), KEY, array("Q", (5, 6, 7)),
                   prints_of(1, 2, 3))  # fmt: skip
        now = ((9, 500, 2 * GRAIN), (3, 900, GRAIN))
        unknown = b"\xff" * SIZE
        assert copies.laid_out(old, KEY, now) == ([6, 7, ZERO], prints_of(2, 3) + unknown)
        assert copies.laid_out(old, b"K" * KEY_SIZE, now)[1] == 3 * unknown
        assert copies.laid_out(None, KEY, now)[1] == 3 * unknown


class TestCopies:
    copy = Copy(((1, 4096, 3 * GRAIN),), KEY, array("Q", (4, ZERO, 4)), prints_of(1, 0, 1))

    def test_a_copy_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        copies.write(tmp_path / "a", self.copy)
        assert copies.read(tmp_path / "a") == self.copy
        assert Counter(self.copy.stored) == {4: 2}

    @given(some.data())
    def test_a_changed_bit_or_a_cut_is_damage(self, data: some.DataObject) -> None:
        content = bytearray(copies.encode(self.copy))
        at = data.draw(some.integers(0, len(content) - 1))
        cut = data.draw(some.booleans())
        if cut:
            del content[at:]
        else:
            content[at] ^= 1 << data.draw(some.integers(0, 7))
        with pytest.raises(Damaged):
            copies.decode(bytes(content))

    @given(some.binary(max_size=400))
    def test_any_bytes_are_a_part_or_damage(self, content: bytes) -> None:
        with pytest.raises(Damaged):
            carrying.opened([content])
