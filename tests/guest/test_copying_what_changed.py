"""What a park copies, what it leaves out, what replicas share, and what gives way."""

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.disk.pool import Damaged, NoRoom

MIB = 2**20
CHUNK = 2 * MIB
SIZE = 8 * CHUNK


@pytest.fixture
def told(node):
    """A program with eight chunks, the last two of them zeros."""
    with node.program() as one:
        yield prepared(one)


def prepared(one, seed=1):
    one.at = one.alloc(SIZE)
    one.clear(one.at, SIZE)
    one.fill(one.at, SIZE - 2 * CHUNK, seed)
    one.was = one.hashed(one.at, SIZE)
    return one


def changed(told, chunk, seed=5):
    told.fill(told.at + chunk * CHUNK + 77, 1, seed)
    told.was = told.hashed(told.at, SIZE)


def whole(told):
    return told.hashed(told.at, SIZE) == told.was


def last(node):
    """What became of the chunks of the last copy."""
    return node.mechanism.tallies[-1]


def parked(node, told):
    """And resumed. What the park copied."""
    slot, kept = node.park(told)
    found = last(node)
    node.resume(told, slot, kept)
    assert whole(told)
    return found


def test_zeros_are_neither_copied_nor_stored(node, told):
    before = node.pool.room().used
    slot, kept = node.park(told)
    assert (last(node).chunks, last(node).zeros, last(node).copied) == (8, 2, 6 * CHUNK)
    assert node.pool.room().used - before == 6 * CHUNK
    node.resume(told, slot, kept)
    assert last(node).copied == 6 * CHUNK
    assert whole(told)


def test_what_did_not_change_is_not_copied_again(node, told):
    parked(node, told)
    found = parked(node, told)
    assert (found.same, found.zeros, found.copied) == (6, 2, 0)


def test_one_changed_byte_is_one_chunk_to_copy(node, told):
    parked(node, told)
    changed(told, 3)
    found = parked(node, told)
    assert (found.same, found.fresh, found.copied) == (5, 1, CHUNK)


def test_a_chunk_that_was_zeros_and_one_that_is_now(node, told):
    parked(node, told)
    told.clear(told.at, CHUNK)
    changed(told, 7)
    found = parked(node, told)
    assert (found.same, found.fresh, found.zeros) == (5, 1, 2)


def test_memory_that_stays_is_known_where_other_memory_comes_and_goes(node, told):
    more = told.alloc(3 * CHUNK)
    told.fill(more, 3 * CHUNK, 9)
    parked(node, told)
    told.free(more)
    told.fill(told.alloc(7 * CHUNK), 7 * CHUNK, 10)
    found = parked(node, told)
    assert (found.same, found.fresh) == (6, 7)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_park_that_is_undone_leaves_a_copy_of_use(node, told, sealed):
    parked(node, told)
    used = node.bulk.chunks.used
    node.mechanism.lock(told.body, 60.0)
    (part,) = node.mechanism.parts(told.body)
    slot = node.pool.reserve(told.body.uid, part.size)
    kept = node.mechanism.copy_out(told.body, part, slot, lambda _: None)
    if sealed:
        slot.seal((kept,))
    node.pool.retire(told.body.uid)
    node.mechanism.unlock(told.body, 60.0)
    assert node.bulk.chunks.used == used
    assert parked(node, told).copied == 0


def test_copies_of_active_workloads_take_no_room(node, told):
    before = node.pool.room().used
    parked(node, told)
    assert node.pool.room().used == before
    assert told.body.uid in node.pool.slots()


def test_a_workload_that_is_gone_leaves_nothing(node):
    used = node.bulk.chunks.used
    with node.program() as told:
        parked(node, prepared(told))
        node.park(told)
    assert node.bulk.chunks.used == used
    assert told.body.uid not in node.pool.slots()


def test_a_spare_that_was_damaged_meanwhile_is_never_let_run(node, told):
    slot, kept = node.park(told)
    node.resume(told, slot, kept)
    node.flip(node.pool.folder / ".spares" / told.body.uid, 17)
    slot, kept = node.park(told)
    with pytest.raises(Damaged, match="1 chunks"):
        node.mechanism.copy_in(told.body, kept[0], slot, lambda _: None)


class TestCarrying:
    """Contents as a stream, for a checkpoint."""

    def test_contents_that_were_carried_away_come_back_as_they_were(self, node, told):
        told.fill(told.at + 2 * CHUNK, CHUNK, 6)
        told.fill(told.at + 4 * CHUNK, CHUNK, 6)  # the same again
        told.was = told.hashed(told.at, SIZE)
        parked(node, told)
        slot, (part,) = node.park(told)
        content = b"".join(node.bulk.carried(slot, part))
        assert len(content) < node.bulk.weight(slot, part) + 4096
        node.pool.free(told.body.uid)
        slot = node.pool.reserve(told.body.uid, part.size)
        pieces = (content[at : at + 1_000_000] for at in range(0, len(content), 1_000_000))
        assert node.bulk.brought(slot, part.name, pieces) == (part.content, part.digest)
        slot.seal((part,))
        node.resume(told, slot, (part,))
        assert whole(told)

    @pytest.mark.parametrize("damage", ["cut", "longer", "another"])
    def test_a_stream_that_is_not_whole_is_damaged_and_takes_nothing(self, node, told, damage):
        slot, kept = node.park(told)
        content = b"".join(node.bulk.carried(slot, kept[0]))
        bad = {"cut": content[:-1], "longer": content + b"x", "another": b"x" + content}[damage]
        used = node.bulk.chunks.used
        other = node.pool.reserve("other", SIZE)
        with pytest.raises(Damaged):
            node.bulk.brought(other, kept[0].name, iter([bad]))
        node.pool.free("other")
        assert node.bulk.chunks.used == used
        node.resume(told, slot, kept)


class TestReplicas:
    def test_what_replicas_have_alike_is_stored_once(self, node, told):
        with node.program() as other:
            prepared(other)
            node.park(told)
            used = node.pool.room().used
            slot, kept = node.park(other)
            assert (last(node).shared, last(node).fresh) == (6, 0)
            assert node.pool.room().used == used
            node.resume(other, slot, kept)
            assert whole(other)

    def test_what_one_changes_stays_right_for_the_other(self, node, told):
        with node.program() as other:
            prepared(other)
            slot, kept = node.park(told)
            parked(node, other)
            changed(other, 2)
            assert parked(node, other).fresh == 1
            assert parked(node, other).copied == 0
            node.resume(told, slot, kept)
            assert whole(told)

    def test_one_that_is_gone_takes_nothing_from_the_other(self, node, told):
        with node.program() as other:
            node.park(prepared(other))
            slot, kept = node.park(told)
        assert other.body.uid not in node.pool.slots()
        with node.program() as third:
            parked(node, prepared(third, seed=3))
        node.resume(told, slot, kept)
        assert whole(told)

    def test_other_namespaces_share_nothing(self, node, told):
        with node.program() as other:
            other.team = "others"
            node.park(told)
            assert parked(node, prepared(other)).shared == 0

    def test_bytes_are_compared_before_anything_is_shared(self, node, told):
        with node.program() as other:
            slot, _ = node.park(told)
            node.flip(slot, 3 * CHUNK + 5)
            assert parked(node, prepared(other)).shared == 5
            node.flip(slot, 3 * CHUNK + 5)
            node.resume(told, slot, slot.parts())

    def test_a_shared_chunk_that_is_damaged_lets_none_of_them_run(self, node, told):
        with node.program() as other:
            slot, kept = node.park(told)
            others = node.park(prepared(other))
            node.flip(slot, CHUNK)
            for one, (place, parts) in ((told, (slot, kept)), (other, others)):
                with pytest.raises(Damaged, match="fingerprints"):
                    node.mechanism.copy_in(one.body, parts[0], place, lambda _: None)


@pytest.fixture(scope="module")
def small(libraries, node_on):
    """A node whose pool holds ten chunks and no more."""
    with little(libraries, node_on, 10) as made:
        yield made


@contextmanager
def little(libraries, node_on, chunks):
    folder = Path(tempfile.mkdtemp(prefix="kyb-s-"))
    made = node_on(folder, libraries, limit=chunks * CHUNK)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


class TestLittleRoom:
    def test_an_older_copy_gives_way_to_another_workload(self, small):
        with small.program() as one, small.program() as other:
            parked(small, prepared(one))
            parked(small, prepared(other, seed=2))
            assert small.pool.bulk.spares() == (other.body.uid,)
            assert parked(small, one).copied == 6 * CHUNK

    def test_an_older_copy_gives_way_to_the_new_one_of_its_own(self, small):
        with small.program() as one:
            parked(small, prepared(one))
            one.fill(one.at, SIZE, 4)
            one.was = one.hashed(one.at, SIZE)
            found = parked(small, one)
            assert (found.fresh, found.copied) == (8, 8 * CHUNK)

    def test_what_was_not_yet_looked_at_of_an_older_copy_stays_of_use(self, libraries, node_on):
        with little(libraries, node_on, 44) as tight, tight.program() as one:
            many = [one.map_(one.create(CHUNK), CHUNK) for _ in range(40)]  # handed over by 32
            for number, at in enumerate(many):
                one.fill(at, CHUNK, number)
            tight.resume(one, *tight.park(one))
            for at in many[:34]:
                one.fill(at, CHUNK, 99)
            tight.resume(one, *tight.park(one))
            found = tight.mechanism.tallies[-2]
            assert (found.same, found.fresh, found.copied) == (6, 34, 34 * CHUNK)
            assert one.holds(many[33], CHUNK, 99)
            assert one.holds(many[34], CHUNK, 34)

    def test_what_does_not_fit_is_refused_before_anything_begins(self, small):
        with small.program() as one, small.program() as other:
            node_parked = small.park(prepared(one))
            with pytest.raises(NoRoom, match="needed"):
                small.pool.reserve(other.body.uid, SIZE)
            small.resume(one, *node_parked)
            assert whole(one)
