"""Which parked contents move next: policy's wish, and what fits."""

from dataclasses import replace
from typing import Any

from kybernate.decisions import switching, tiers
from kybernate.decisions.books import Books
from kybernate.decisions.tenancy import Tenancy
from kybernate.decisions.tiers import Decided
from kybernate.model.gpu import Seat
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.policy import TieringVerdict
from kybernate.model.tier import Bandwidth, Tier
from kybernate.model.verdict import Reason
from kybernate.model.workload import State
from kybernate.testing.builders import GIB, a_group
from kybernate.testing.policy import FakePolicy

NOW = 1_000_000.0
G0 = a_group(0)


def _key(name: str) -> WorkloadKey:
    return WorkloadKey("default", name)


def _parked(name: str, **facts: Any) -> Tenancy:
    whole: dict[str, Any] = {
        "key": _key(name), "uid": PodUid(name), "group": G0, "seat": Seat(G0.name, 0),
        "vram": 40 * GIB, "state": State.PARKED, "since": NOW - 60,
    }  # fmt: skip
    return Tenancy(**{**whole, **facts})


def _active(name: str, **facts: Any) -> Tenancy:
    running = {"state": State.ACTIVE, "active_since": NOW - 600, "idle_since": NOW}
    return _parked(name, **{**running, **facts})


def _books(*tenancies: Tenancy, **fields: Any) -> Books:
    books = Books(
        memory={0: 80 * GIB}, groups={G0.name: G0}, pool_size=100 * GIB, pool_free=100 * GIB,
        nvme_free=1000 * GIB, nvme_size=1000 * GIB, nvme=Bandwidth(bytes_per_second=GIB),
    )  # fmt: skip
    return replace(books, tenancies={one.key: one for one in tenancies}, **fields)


def _decide(books: Books, short: int = 0, *, far: bool = False, **terms: Any) -> Decided:
    return tiers.decide(books, NOW, FakePolicy(**terms), short, far=far)


def _moved(decided: Decided) -> tuple[str, Tier, str] | None:
    move = decided.move
    return (move.key.name, move.to, move.why) if move else None


def test_with_room_for_all_nothing_moves() -> None:
    assert _decide(_books(_parked("a"), _parked("b"))) == Decided()


def test_for_whoever_is_to_be_parked_the_least_valuable_goes() -> None:
    often, seldom = _parked("a", asked_every=60.0), _parked("b", asked_every=600.0)
    waits = _parked("c", wanted_since=NOW - 5)
    books = _books(often, seldom, waits, pool_free=0)
    assert _moved(_decide(books, short=GIB)) == ("b", Tier.NVME, "RoomNeeded")


def test_where_ram_is_scarce_who_was_parked_for_long_goes_and_when_is_known() -> None:
    books = _books(_parked("a", since=NOW - 700), _parked("b", since=NOW - 500), pool_free=0)
    decided = _decide(books)
    assert _moved(decided) == ("a", Tier.NVME, "ParkedLong")
    assert decided.again_at == NOW + 100


def test_nothing_goes_where_it_has_no_room_or_cannot_be() -> None:
    for books in (
        _books(_parked("a"), pool_free=0, nvme_free=39 * GIB),
        _books(_parked("a", movable=False), pool_free=0),
        _books(_parked("a", through_ram=True), pool_free=0),  # 40 + 80 do not fit into 100
    ):
        assert _moved(_decide(books, short=GIB)) is None


def test_the_next_in_line_comes_up_beside_the_one_it_waits_for() -> None:
    below = _parked("a", tier=Tier.NVME, wanted_since=NOW - 5)
    holder = _active("b", vram=60 * GIB)
    assert _moved(_decide(_books(below, holder))) == ("a", Tier.RAM, "Next")
    assert _moved(_decide(_books(below, holder, pool_free=99 * GIB))) is None


def test_code_keeps_room_for_who_will_be_parked_whatever_policy_says() -> None:
    below = _parked("a", tier=Tier.NVME, wanted_since=NOW - 5)
    policy = FakePolicy()
    policy.say(TieringVerdict, TieringVerdict(tier=Tier.RAM, reason="Because"))
    books = _books(below, _active("b", vram=61 * GIB))
    assert tiers.decide(books, NOW, policy, 0).move is None
    assert tiers.decide(replace(books, pool_free=101 * GIB), NOW, policy, 1).move is None


def test_without_a_verdict_everything_stays_and_is_asked_again() -> None:
    decided = _decide(_books(_parked("a"), pool_free=0), short=GIB, away=True)
    assert decided == Decided(again_at=NOW + tiers.RETRY_SECONDS)


def test_a_policy_that_knows_nothing_of_parked_ones_leaves_them() -> None:
    policy = FakePolicy()
    policy.say(TieringVerdict, TieringVerdict(tier=Tier.VRAM, reason="MinRuntime"))
    assert tiers.decide(_books(_parked("a"), pool_free=0), NOW, policy, GIB).move is None


def _switched(*tenancies: Tenancy, **fields: Any) -> switching.Decided:
    books = _books(*tenancies, bus=Bandwidth(bytes_per_second=20 * GIB), **fields)
    return switching.decide(books, NOW, FakePolicy())


def test_a_full_pool_refuses_and_says_what_it_lacks_where_others_can_go() -> None:
    waiter = _parked("a", wanted_since=NOW - 99)
    decided = _switched(waiter, _active("b"), _parked("c"), pool_free=10 * GIB)
    assert decided.plan is None
    assert decided.waits[_key("a")].reason is Reason.NO_HOST_MEMORY
    assert "others are demoted first" in decided.waits[_key("a")].detail
    assert decided.short == 30 * GIB
    full = _switched(waiter, _active("b"), _parked("c"), pool_free=10 * GIB, nvme_free=0)
    assert (full.plan, full.short) == (None, 0)


def test_a_plan_says_what_fetching_from_nvme_takes() -> None:
    plan = _switched(_parked("a", tier=Tier.NVME, wanted_since=NOW - 99), _active("b")).plan
    assert str(plan).startswith("44.0 s = park b 2.0 + fetch nvme 40 GiB 40.0 + resume a 2.0")


def test_who_comes_back_through_the_pool_needs_its_room() -> None:
    waiter = _parked("a", tier=Tier.NVME, wanted_since=NOW - 99, through_ram=True)
    assert _switched(waiter, _active("b"), pool_free=80 * GIB).plan is not None
    lacks = _switched(waiter, _active("b"), _parked("c"), pool_free=60 * GIB)
    assert (lacks.plan, lacks.short) == (None, 20 * GIB)


OBJECTS: dict[str, Any] = {"object_free": 1000 * GIB, "store": Bandwidth(bytes_per_second=GIB // 2)}


def test_where_nvme_is_full_the_least_valuable_there_goes_on_first() -> None:
    often = _parked("a", tier=Tier.NVME, asked_every=60.0)
    seldom = _parked("b", tier=Tier.NVME, asked_every=600.0)
    books = _books(often, seldom, _parked("c"), pool_free=0, nvme_free=39 * GIB, **OBJECTS)
    assert _moved(_decide(books, short=GIB)) is None, "that is for the other way"
    assert _moved(_decide(books, short=GIB, far=True)) == ("b", Tier.OBJECT, "NvmeNeeded")
    after = replace(books.change(_key("b"), tier=Tier.OBJECT), nvme_free=79 * GIB)
    assert _moved(_decide(after, short=GIB)) == ("c", Tier.NVME, "RoomNeeded")


def test_where_nvme_is_scarce_who_was_parked_for_long_goes_on() -> None:
    long, lately = (_parked(n, tier=Tier.NVME, since=NOW - s) for n, s in (("a", 3601), ("b", 100)))
    books = _books(long, lately, nvme_free=199 * GIB, **OBJECTS)
    decided = _decide(books, far=True)
    assert _moved(decided) == ("a", Tier.OBJECT, "LongOnNvme")
    assert decided.again_at == NOW + 3500
    for none in ({"nvme_free": 200 * GIB}, {"object_free": 39 * GIB}):
        assert _moved(_decide(replace(books, **none), far=True)) is None


def test_a_full_nvme_and_a_full_pool_still_make_room_where_there_is_a_store() -> None:
    waiter, below = _parked("a", wanted_since=NOW - 99), _parked("d", tier=Tier.NVME)
    facts: dict[str, Any] = {"pool_free": 10 * GIB, "nvme_free": 0, "nvme_size": 40 * GIB}
    decided = _switched(waiter, _active("b"), _parked("c"), below, **facts, **OBJECTS)
    assert (decided.plan, decided.short) == (None, 30 * GIB)
    none = _switched(waiter, _active("b"), _parked("c"), below, **facts)
    assert (none.plan, none.short) == (None, 0)


def test_nothing_goes_on_for_one_that_nvme_could_never_hold() -> None:
    big = _parked("c", vram=90 * GIB)
    books = _books(big, _parked("d", tier=Tier.NVME), pool_free=0, nvme_free=10 * GIB,
                   nvme_size=50 * GIB, **OBJECTS)  # fmt: skip
    assert _moved(_decide(books, short=GIB, far=True)) is None


def test_the_next_in_line_comes_back_from_object_storage_to_ram_or_else_to_nvme() -> None:
    stored = _parked("a", tier=Tier.OBJECT, wanted_since=NOW - 5)
    holder = _active("b", vram=60 * GIB)
    assert _moved(_decide(_books(stored, holder, **OBJECTS), far=True)) == ("a", Tier.RAM, "Next")
    full = _books(stored, holder, pool_free=99 * GIB, **OBJECTS)
    assert _moved(_decide(full, far=True)) == ("a", Tier.NVME, "Next")
    assert _moved(_decide(replace(full, nvme_free=39 * GIB), far=True)) is None


def test_into_object_storage_it_goes_by_way_of_nvme() -> None:
    policy = FakePolicy()
    policy.say(TieringVerdict, TieringVerdict(tier=Tier.OBJECT, reason="Because"))
    books = _books(_parked("a"), **OBJECTS)
    assert _moved(tiers.decide(books, NOW, policy, 0)) == ("a", Tier.NVME, "Because")
    below = books.change(_key("a"), tier=Tier.NVME)
    assert _moved(tiers.decide(below, NOW, policy, 0, far=True)) == ("a", Tier.OBJECT, "Because")
    none = replace(below, object_free=0)
    assert tiers.decide(none, NOW, policy, 0, far=True).move is None, (
        "without a store nothing changes"
    )


def test_a_policy_that_does_not_know_object_storage_leaves_it_there() -> None:
    policy = FakePolicy()
    for tier in (Tier.VRAM, Tier.OBJECT):
        policy.say(TieringVerdict, TieringVerdict(tier=tier, reason="MinRuntime"))
        books = _books(_parked("a", tier=Tier.OBJECT), **OBJECTS)
        assert tiers.decide(books, NOW, policy, 0, far=True).move is None


def test_a_plan_says_what_fetching_from_object_storage_takes() -> None:
    stored = _parked("a", tier=Tier.OBJECT, wanted_since=NOW - 99)
    plan = _switched(stored, _active("b"), **OBJECTS).plan
    assert str(plan).startswith("84.0 s = park b 2.0 + fetch object 40 GiB 80.0 + resume a 2.0")
