"""Whose context stays on its card: the next in line's, where it has room."""

from typing import Any

import pytest

from kybernate.decisions.books import Books
from kybernate.decisions.depth import may_stay
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.gpu import Seat
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State, WorkloadClass
from kybernate.testing.builders import GIB, a_group


def _tenancy(name: str, gpu: int, vram: int, state: State, **fields: Any) -> Tenancy:
    group = a_group(gpu)
    return Tenancy(
        key=WorkloadKey("default", name), uid=PodUid(name), group=group,
        seat=Seat(group.name, 0), vram=vram * GIB, state=state, **fields,
    )  # fmt: skip


def _books(*tenancies: Tenancy) -> Books:
    groups = {t.group.name: t.group for t in tenancies}
    return Books(
        memory={0: 80 * GIB, 1: 80 * GIB}, groups=groups, tenancies={t.key: t for t in tenancies}
    )


TRAINING = {"workload_class": WorkloadClass.TRAINING}


@pytest.mark.parametrize(
    ("holder", "others", "stays"),
    [
        pytest.param(TRAINING, (), True, id="it returns by itself"),
        pytest.param({"wanted_since": 5.0}, (), True, id="somebody asked for it meanwhile"),
        pytest.param({}, (), False, id="it waits to be asked"),
        pytest.param(TRAINING, (0,), False, id="somebody else is before it"),
        pytest.param(TRAINING, (1,), True, id="who waits, waits for another card"),
    ],
)
def test_the_next_in_line_stays(
    holder: dict[str, Any], others: tuple[int, ...], *, stays: bool
) -> None:
    active = _tenancy("a", 0, 60, State.ACTIVE, **holder)
    incoming = _tenancy("b", 0, 60, State.PARKED, wanted_since=1.0)
    waiting = [_tenancy(f"c{gpu}", gpu, 60, State.PARKED, wanted_since=2.0) for gpu in others]
    books = _books(active, incoming, *waiting)
    assert may_stay(books, (active,), incoming) == ((active.key,) if stays else ())


def test_a_context_without_room_beside_the_one_who_comes_in_leaves() -> None:
    active = _tenancy("a", 0, 60, State.ACTIVE, **TRAINING)
    incoming = _tenancy("b", 0, 79, State.PARKED, wanted_since=1.0)
    assert may_stay(_books(active, incoming), (active,), incoming) == ()


def test_without_anybody_coming_in_nobody_stays() -> None:
    active = _tenancy("a", 0, 60, State.ACTIVE, **TRAINING)
    assert may_stay(_books(active), (active,), None) == ()
