"""The contract of catalogues: the same over memory, SQLite and PostgreSQL."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kybernate.model.artifact import (
    NOWHERE,
    Artifact,
    Check,
    Inventory,
    Kind,
    Occurrence,
    Place,
    Wanted,
)
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier
from registry.catalogue import Catalogue, Story
from registry.memory import Memory

ALL = Wanted()
Make = Callable[..., Artifact]
Tell = Callable[..., Occurrence]
At = Callable[..., Place]


def test_what_is_sealed_is_a_row_with_all_that_its_artifact_says(
    catalogue: Catalogue, artifact: Make, told: Tell, place: At
) -> None:
    one = artifact(gold=True, labels={"app": "llama", "käse": "x"})
    assert catalogue.record([told(Kind.SEALED, one)]) == 1
    [row] = catalogue.rows(ALL)
    assert row.artifact == one
    assert row.copies == (place(),)
    assert row.checks == {}


def test_told_twice_it_happened_once(catalogue: Catalogue, artifact: Make, told: Tell) -> None:
    sealed, removed = told(Kind.SEALED, artifact()), told(Kind.REMOVED, artifact())
    assert catalogue.record([sealed, removed]) == 2
    assert catalogue.record([sealed, sealed]) == 0
    assert catalogue.rows(ALL) == ()
    assert len(catalogue.history(Story())) == 2


def test_the_row_goes_with_its_last_copy_and_its_history_stays(
    catalogue: Catalogue, artifact: Make, told: Tell, place: At
) -> None:
    one, there = artifact(), place("node-b")
    catalogue.record([told(Kind.SEALED, one), told(Kind.COPIED, one, there)])
    catalogue.record([told(Kind.REMOVED, one)])
    assert [row.copies for row in catalogue.rows(ALL)] == [(there,)]
    catalogue.record([told(Kind.REMOVED, one, there)])
    assert catalogue.rows(ALL) == ()
    kinds = [entry.occurrence.kind for entry in catalogue.history(Story())]
    assert kinds == [Kind.SEALED, Kind.COPIED, Kind.REMOVED, Kind.REMOVED]


def test_how_good_a_copy_is_is_what_was_found_when_it_was_last_compared(
    catalogue: Catalogue, artifact: Make, told: Tell, place: At
) -> None:
    one = artifact()
    catalogue.record([told(Kind.SEALED, one), told(Kind.VERIFIED, one, at=5.0)])
    assert catalogue.rows(ALL)[0].checks == {place(): Check(at=5.0)}
    catalogue.record([told(Kind.DAMAGED, one, at=6.0, detail="a file is missing")])
    assert catalogue.rows(ALL)[0].checks == {place(): Check(at=6.0, flaw="a file is missing")}
    catalogue.record([told(Kind.REMOVED, one), told(Kind.COPIED, one)])
    assert catalogue.rows(ALL)[0].checks == {}


def test_a_check_of_what_is_not_there_makes_no_row(
    catalogue: Catalogue, artifact: Make, told: Tell
) -> None:
    catalogue.record([told(Kind.VERIFIED, artifact()), told(Kind.REMOVED, artifact())])
    assert catalogue.rows(ALL) == ()


def test_a_name_given_anew_is_another_row(
    catalogue: Catalogue, artifact: Make, told: Tell, place: At
) -> None:
    old, new = artifact(signature="ed25519:aa:1"), artifact(signature="ed25519:aa:2")
    catalogue.record([told(Kind.SEALED, old, place("node-b")), told(Kind.SEALED, new)])
    found = catalogue.rows(Wanted(namespace="default", name="llama-1"))
    assert [row.artifact for row in found] == [old, new]


def test_rows_are_filtered(catalogue: Catalogue, artifact: Make, told: Tell, place: At) -> None:
    ours = [
        artifact("a", namespace="team-a", sealed_at=1.0),
        artifact("b", workload="deployment.chat", gold=True, sealed_at=2.0),
        artifact("c", fingerprint="sha256:bb", sealed_at=3.0),
    ]
    catalogue.record([told(Kind.SEALED, one) for one in ours])
    catalogue.record([told(Kind.COPIED, ours[1], place("node-b"))])
    catalogue.record([told(Kind.COPIED, ours[2], Place(node=NOWHERE, tier=Tier.OBJECT))])

    def names(**wanted: object) -> list[str]:
        rows = catalogue.rows(Wanted(**wanted))  # type: ignore[arg-type]
        return [row.artifact.identity.name for row in rows]

    assert names() == ["b", "c", "a"]
    assert names(namespace="team-a") == ["a"]
    assert names(workload="deployment.chat") == ["b"]
    assert names(gold=False) == ["c", "a"]
    assert names(fingerprint="sha256:bb") == ["c"]
    assert names(node=NodeName("node-b")) == ["b"]
    assert names(node=NOWHERE) == ["c"]
    assert names(tier=Tier.OBJECT) == ["c"]
    assert names(node=NodeName("node-a"), tier=Tier.OBJECT) == []
    assert names(sealed_from=2.0) == ["b", "c"]
    assert names(sealed_until=2.0) == ["b", "a"]


def test_pages_follow_each_other(catalogue: Catalogue, artifact: Make, told: Tell) -> None:
    ours = sorted(f"{letter}-{n}" for n in range(7) for letter in "aZ-")
    catalogue.record([told(Kind.SEALED, artifact(name)) for name in ours])
    found: list[str] = []
    after = None
    while page := catalogue.rows(ALL, after, 4):
        assert len(page) <= 4
        found += [row.artifact.identity.name for row in page]
        after = page[-1].artifact.identity
    assert found == ours


def test_history_is_paged_and_filtered(
    catalogue: Catalogue, artifact: Make, told: Tell, place: At
) -> None:
    catalogue.record([told(Kind.SEALED, artifact(f"c-{n}")) for n in range(5)])
    catalogue.record([told(Kind.COPIED, artifact("c-1"), place("node-b"))])
    first = catalogue.history(Story(), limit=4)
    rest = catalogue.history(Story(), after=first[-1].number, limit=4)
    numbers = [entry.number for entry in (*first, *rest)]
    assert len(numbers) == 6
    assert numbers == sorted(set(numbers))
    of_one = catalogue.history(Story(namespace="default", name="c-1"))
    assert [entry.occurrence.kind for entry in of_one] == [Kind.SEALED, Kind.COPIED]
    assert len(catalogue.history(Story(node=NodeName("node-b")))) == 1
    assert catalogue.history(Story(namespace="other")) == ()
    assert of_one[0].occurrence.artifact == artifact("c-1")


def test_an_inventory_finds_and_misses_what_nobody_had_told(
    catalogue: Catalogue, artifact: Make, told: Tell, place: At
) -> None:
    kept, lost, new = artifact("kept"), artifact("lost"), artifact("new")
    catalogue.record([told(Kind.SEALED, one, at=10.0) for one in (kept, lost)])
    catalogue.record([told(Kind.COPIED, lost, place("node-b"), at=10.0)])
    seen = Inventory(place=place(), as_of=20.0, artifacts=(kept, new))
    assert catalogue.take_inventory(seen) == (1, 1)
    assert {row.artifact.identity.name: row.copies for row in catalogue.rows(ALL)} == {
        "kept": (place(),),
        "new": (place(),),
        "lost": (place("node-b"),),
    }
    assert catalogue.take_inventory(seen) == (0, 0)
    kinds = [entry.occurrence.kind for entry in catalogue.history(Story())]
    assert kinds[-2:] == [Kind.FOUND, Kind.MISSING]


def test_what_happened_after_an_inventory_was_begun_stands(
    catalogue: Catalogue, artifact: Make, told: Tell, place: At
) -> None:
    sealed_since, removed_since = artifact("sealed"), artifact("removed")
    catalogue.record([told(Kind.SEALED, removed_since, at=10.0)])
    catalogue.record([told(Kind.REMOVED, removed_since, at=21.0)])
    catalogue.record([told(Kind.SEALED, sealed_since, at=21.0)])
    seen = Inventory(place=place(), as_of=20.0, artifacts=(removed_since,))
    assert catalogue.take_inventory(seen) == (0, 0)
    assert [row.artifact for row in catalogue.rows(ALL)] == [sealed_since]


def test_an_inventory_of_nothing_leaves_nothing(
    catalogue: Catalogue, artifact: Make, told: Tell, place: At
) -> None:
    catalogue.record([told(Kind.SEALED, artifact(), at=10.0)])
    assert catalogue.take_inventory(Inventory(place=place(), as_of=20.0, artifacts=())) == (0, 1)
    assert catalogue.rows(ALL) == ()


def test_its_epoch_stays(catalogue: Catalogue) -> None:
    assert catalogue.epoch()
    assert catalogue.epoch() == catalogue.epoch()


def test_many_may_tell_at_once(catalogue: Catalogue, artifact: Make, told: Tell) -> None:
    begin = threading.Barrier(8)

    def tell(number: int) -> int:
        ours = [told(Kind.SEALED, artifact(f"c-{number}-{n}")) for n in range(5)]
        begin.wait(30)
        return sum(catalogue.record([one]) for one in (*ours, *ours))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(tell, range(8))) == [5] * 8
    entries = catalogue.history(Story(), limit=1000)
    assert [entry.number for entry in entries] == sorted(entry.number for entry in entries)
    assert len(catalogue.rows(ALL, limit=1000)) == len(entries) == 40


PLACES = [Place(node=NodeName(node), tier=Tier.NVME) for node in ("a", "b")]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["c1", "c2"]),
            st.sampled_from(PLACES),
            st.sampled_from([Kind.SEALED, Kind.REMOVED, Kind.VERIFIED, Kind.DAMAGED]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_whatever_is_told_all_of_them_answer_as_the_one_in_memory(
    catalogue: Catalogue,
    artifact: Make,
    told: Tell,
    steps: list[tuple[str, Place, Kind, bool]],
) -> None:
    beside = Memory()
    catalogue.record(
        [told(Kind.REMOVED, artifact(name), at, at=0.0) for name in ("c1", "c2") for at in PLACES]
    )  # an example begins where the one before ended: with no rows
    for number, (name, where, kind, twice) in enumerate(steps):
        one = replace(told(kind, artifact(name), where), at=float(number))
        for each in (catalogue, beside):
            each.record([one] * (1 + twice))
    assert catalogue.rows(ALL) == beside.rows(ALL)
