"""The gRPC API, over mutual TLS, with certificates as the controller makes them."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kybernate.api import names
from kybernate.clients.pb import registry_pb2 as pb
from kybernate.clients.registry import Registry, RegistryAway, RegistryRefused, messages
from kybernate.clients.registry.errors import translated
from kybernate.model.artifact import Artifact, Inventory, Kind, Occurrence, Place, Wanted

Make = Callable[..., Artifact]
Tell = Callable[..., Occurrence]


@pytest.fixture
def agent(served: Any) -> Iterator[Registry]:
    with served.as_(names.AGENT_CLIENT) as registry:
        yield registry


def test_what_an_agent_tells_anybody_of_ours_may_ask(
    served: Any, agent: Registry, artifact: Make, told: Tell, place: Callable[..., Place]
) -> None:
    one = artifact(gold=True)
    first = agent.record([told(Kind.SEALED, one), told(Kind.VERIFIED, one)])
    with served.as_(names.CLIENT) as people:
        [row] = people.get("default", "llama-1")
        assert row.artifact == one
        assert row.copies == (place(),)
        assert row.checks[place()].flaw == ""
        assert [entry.occurrence.kind for entry in people.history()] == ["sealed", "verified"]
        again = people.take_inventory(Inventory(place=place(), as_of=2e9, artifacts=()))
        assert (again.epoch, again.missing) == (first.epoch, 1)
        assert people.get("default", "llama-1") == ()


def test_people_ask_and_do_not_tell(served: Any, artifact: Make, told: Tell) -> None:
    with served.as_(names.CLIENT) as people, pytest.raises(RegistryRefused, match="PERMISSION"):
        people.record([told(Kind.SEALED, artifact())])


@pytest.mark.parametrize("name", [names.ACTIVATOR_CLIENT, names.SCHEDULER_CLIENT])
def test_others_with_a_certificate_of_ours_are_refused(served: Any, name: str) -> None:
    with served.as_(name) as other, pytest.raises(RegistryRefused, match="PERMISSION_DENIED"):
        other.list(Wanted())


def test_all_pages_are_followed(agent: Registry, artifact: Make, told: Tell) -> None:
    ours = sorted(f"c-{n}" for n in range(25))
    agent.record([told(Kind.SEALED, artifact(name)) for name in ours])
    page = agent.list(Wanted(), size=10)
    assert len(page.rows) == 10
    rest = agent.list(Wanted(), size=1000, token=page.next)
    found = [row.artifact.identity.name for row in (*page.rows, *rest.rows)]
    assert found == ours
    assert rest.next == ""
    assert len(list(agent.history(after=5))) == 20


def test_an_inventory_of_many_comes_in_pieces(
    agent: Registry, artifact: Make, place: Callable[..., Place]
) -> None:
    many = tuple(artifact(f"c-{n}") for n in range(2 * messages.TOGETHER + 1))
    assert agent.take_inventory(Inventory(place=place(), as_of=1.0, artifacts=many)).found == len(
        many
    )


def test_a_watcher_hears_what_was_and_what_comes(
    agent: Registry, artifact: Make, told: Tell
) -> None:
    agent.record([told(Kind.SEALED, artifact())])
    heard = agent.watch(timeout=60)
    assert next(heard).occurrence.kind is Kind.SEALED
    later = threading.Timer(0.0, lambda: agent.record([told(Kind.REMOVED, artifact())]))
    later.start()
    assert next(heard).occurrence.kind is Kind.REMOVED
    later.join()
    heard.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"kind": "moved"}, r"kind: 'moved' \(expected one of sealed", id="kind"),
        pytest.param({"tier": "tape"}, "tier: 'tape'", id="tier"),
        pytest.param({"tier": "object"}, "node: 'node-a'", id="object-storage-on-a-node"),
        pytest.param({"node": ""}, "node: ''", id="nvme-nowhere"),
        pytest.param({"key": ""}, "key: ''", id="no-key"),
        pytest.param({"name": "x" * 2000}, r"expected 1 to 1024 characters", id="long-name"),
        pytest.param({"name": "other"}, "artifact: another", id="another-artifact"),
        pytest.param({"kind": "removed"}, "artifact: expected with", id="artifact-not-wanted"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words_and_nothing_is_written(
    agent: Registry, artifact: Make, told: Tell, change: dict[str, str], said: str
) -> None:
    good = messages.write_occurrence(told(Kind.SEALED, artifact("good")))
    bad = messages.write_occurrence(told(Kind.SEALED, artifact()))
    for name, value in change.items():
        setattr(bad, name, value)
    with pytest.raises(RegistryRefused, match=said), translated():
        agent._registry.Record(pb.RecordRequest(occurrences=[good, bad]), timeout=10)
    assert agent.list(Wanted()).rows == ()


def test_a_token_that_is_none_is_refused(agent: Registry) -> None:
    with pytest.raises(RegistryRefused, match="page_token: 'next'"):
        agent.list(Wanted(), token="next")


def test_a_registry_that_stops_is_away(served: Any, agent: Registry) -> None:
    agent.list(Wanted())
    served.stop()
    with pytest.raises(RegistryAway):
        agent.list(Wanted())
