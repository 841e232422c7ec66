"""Which seats the kubelet is offered."""

from kybernate.decisions.books import Books
from kybernate.decisions.seating import Offer, prefer
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.gpu import Health, Seat
from kybernate.model.ids import GroupName, PodUid, WorkloadKey
from kybernate.model.workload import Wishes
from kybernate.testing.builders import GIB, a_group

GROUPS = {group.name: group for group in (a_group(0), a_group(1), a_group(0, 1))}
SEATS = tuple(Seat(GroupName(f"G{gpu}"), number) for gpu in (0, 1) for number in (0, 1))


def _books(*groups: str, **fields: object) -> Books:
    there = [
        Tenancy(
            key=WorkloadKey("default", f"w{n}"), uid=PodUid(str(n)),
            group=GROUPS[GroupName(name)], seat=Seat(GroupName(name), 9), vram=GIB,
        )
        for n, name in enumerate(groups)
    ]  # fmt: skip
    return Books(
        memory={0: 80 * GIB, 1: 80 * GIB}, groups=GROUPS,
        tenancies={one.key: one for one in there}, **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def _first(books: Books, *wishes: Wishes, must: tuple[Seat, ...] = (), size: int = 1) -> list[str]:
    offer = Offer(available=SEATS, must_include=must, size=size)
    return [seat.id for seat in prefer(books, offer, wishes)]


def test_the_least_contended_group_is_best() -> None:
    assert _first(_books("G0")) == ["G1/0"]


def test_groups_that_overlap_count_as_contention() -> None:
    assert _first(_books("G01", "G1")) == ["G0/0"]


def test_a_preference_comes_before_contention() -> None:
    assert _first(_books("G0"), Wishes(prefer_group=GroupName("G0"))) == ["G0/0"]


def test_a_required_group_comes_before_a_preferred_one() -> None:
    wishes = Wishes(prefer_group=GroupName("G0")), Wishes(require_group=GroupName("G1"))
    assert _first(_books(), *wishes) == ["G1/0"]


def test_an_unhealthy_group_is_last_also_when_it_is_preferred() -> None:
    books = _books("G1", health={GroupName("G0"): Health.UNHEALTHY})
    assert _first(books, Wishes(prefer_group=GroupName("G0"))) == ["G1/0"]


def test_what_must_be_included_is() -> None:
    must = Seat(GroupName("G0"), 1)
    assert _first(_books("G0"), must=(must,), size=2) == ["G0/1", "G1/0"]
