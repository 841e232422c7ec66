"""The RAM pool: sealed slots, a limit that holds, and nothing lost when the agent is replaced."""

from pathlib import Path

import pytest

from nodeagent.disk.pool import Damaged, Kept, NoRoom, Pool

GIB = 2**30


def _kept(pool: Pool, name: str = "uid-a", content: bytes = b"abc" * 100) -> Kept:
    slot = pool.reserve(name, 2 * GIB)
    size, digest = slot.write("ctx-1/seg-1", iter([content[:50], content[50:]]))
    part = Kept(name="ctx-1/seg-1", uuid="GPU-0", size=2 * GIB, content=size, digest=digest)
    slot.seal((part,))
    return part


def test_what_was_sealed_is_read_back(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 10 * GIB)
    part = _kept(pool)
    slot = pool.slot("uid-a")
    assert slot.parts() == (part,)
    assert b"".join(slot.read(part.name)) == b"abc" * 100
    slot.check(part)


def test_another_agent_finds_the_same_slots(tmp_path: Path) -> None:
    part = _kept(Pool(tmp_path, 10 * GIB))
    after = Pool(tmp_path, 10 * GIB)
    assert (after.room().used, after.slot("uid-a").parts()) == (2 * GIB, (part,))


def test_a_reservation_counts_before_anything_is_written_and_after_a_restart(
    tmp_path: Path,
) -> None:
    pool = Pool(tmp_path, 3 * GIB)
    pool.reserve("uid-a", 2 * GIB)
    for other in (pool, Pool(tmp_path, 3 * GIB)):
        with pytest.raises(NoRoom, match=r"2\.0 GiB needed, 1\.0 GiB left"):
            other.reserve("uid-b", 2 * GIB)


def test_reserving_again_starts_with_an_empty_slot(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 3 * GIB)
    _kept(pool)
    slot = pool.reserve("uid-a", 2 * GIB)
    with pytest.raises(Damaged):
        slot.parts()


def test_freeing_gives_the_room_back_and_may_be_repeated(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 3 * GIB)
    _kept(pool)
    pool.free("uid-a")
    pool.free("uid-a")
    assert (pool.room().used, list(tmp_path.iterdir())) == (0, [])


@pytest.mark.parametrize("damage", ["cut", "gone", "unsealed"])
def test_a_slot_that_is_not_whole_is_said_to_be_damaged(tmp_path: Path, damage: str) -> None:
    pool = Pool(tmp_path, 3 * GIB)
    _kept(pool)
    (part,) = (tmp_path / "uid-a").glob("*.part")
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    elif damage == "gone":
        part.unlink()
    else:
        (tmp_path / "uid-a" / "slot.json").unlink()
    with pytest.raises(Damaged):
        pool.slot("uid-a").parts()


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 3 * GIB)
    kept = _kept(pool)
    (part,) = (tmp_path / "uid-a").glob("*.part")
    part.write_bytes(b"x" + part.read_bytes()[1:])
    with pytest.raises(Damaged, match="changed in the pool"):
        pool.slot("uid-a").check(kept)


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a" * 80])
def test_a_slots_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a slot's name"):
        Pool(tmp_path, GIB).slot(name)


def test_a_parts_name_cannot_leave_its_slot(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "pool", GIB)
    pool.reserve("uid-a", 1).write("../../escaped", iter([b"x"]))
    assert not (tmp_path / "escaped").exists()
    assert len(list((tmp_path / "pool" / "uid-a").glob("*.part"))) == 1


def test_a_slot_that_could_not_be_made_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    pool = Pool(tmp_path, 3 * GIB)
    monkeypatch.setattr("nodeagent.disk.pool.seal", full)
    with pytest.raises(OSError, match="No space"):
        pool.reserve("uid-a", 2 * GIB)
    assert (pool.room().used, pool.slots()) == (0, {})
