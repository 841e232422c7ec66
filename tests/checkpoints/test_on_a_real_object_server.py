"""Demoting to and fetching from a real S3 server (SeaweedFS), which goes away in between.

Real: the server, nodes' stores, keys, chunks. Told: the clock of whoever retries.
"""

import os
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kybernate.artifacts import packs
from kybernate.ladder import copying
from kybernate.runtime.clock import SystemClock
from kybernate.stores import places
from kybernate.stores.places import BadPlace
from kybernate.stores.port import Store as Objectstore
from nodeagent.checkpoints.faults import Cancelled, PeerAway
from nodeagent.checkpoints.fetching import Fetched, Wanted
from nodeagent.checkpoints.objects import Given, NoStore, Objects
from nodeagent.checkpoints.store import Store
from testbed.objectserver import KEY_ID, SECRET, ObjectServer


class Hasty(SystemClock):
    """While nobody will answer, whoever waits has waited."""

    in_vain = False

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """As the port says."""
        return event.is_set() if self.in_vain else super().wait(event, seconds)


NAMESPACE, NAME = "default", "llama-0"
MIB = 2**20
BODY = os.urandom(70 * MIB)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ObjectServer]:
    with ObjectServer.start(tmp_path / "objects") as running:
        running.make_bucket("kyb")
        yield running


def store_at(server: ObjectServer) -> Objectstore:
    """As an agent's settings name it."""
    who = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    return places.store("s3://kyb/cluster-a", {**who, "AWS_ENDPOINT_URL": server.url})


def test_it_goes_there_and_comes_back_over_outages(
    server: ObjectServer, new_store: Callable[..., Store], wrapping: Path,
    facts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(copying, "AT_ONCE", 1)  # else all of it is on its way at once
    monkeypatch.setattr(packs, "FULL", 8 * MIB)
    bucket, given = store_at(server), Given()
    one, other = (new_store(name, limit=256 * MIB) for name in ("node-a", "node-b"))
    with one.draft(NAMESPACE, NAME) as draft:
        draft.write("gpu/0", [BODY])
        sealed = draft.seal(facts(parts=()))
    wanted = Wanted(namespace=NAMESPACE, name=NAME, signature=sealed.signature)
    clock = Hasty()
    objects = Objects(given, one, clock, store=bucket)

    ended = threading.Event()

    def half(progress: Fetched) -> None:
        if progress.done > 40 * MIB:
            ended.set()

    with pytest.raises(Cancelled):
        objects.demote(wanted, half, ended)
    put = sum(one.size for one in bucket.list("domains/default/packs"))
    assert 0 < put < 70 * MIB
    server.kill()
    clock.in_vain = True
    with pytest.raises(PeerAway, match="the store cannot be reached"):
        objects.demote(wanted)
    server.start_again()
    clock.in_vain = False
    written = objects.demote(wanted).written
    assert written + put < 71 * MIB  # what was there before the outage was not sent again
    assert objects.flaw(wanted) == ""

    fetching = Objects(given, other, clock, store=bucket)

    def outage(progress: Fetched) -> None:
        if progress.done > 30 * MIB and not clock.in_vain:
            clock.in_vain = True
            server.kill()

    with pytest.raises(PeerAway):
        fetching.fetch(wanted, outage)
    server.start_again()
    clock.in_vain = False
    seen: list[Fetched] = []
    back = fetching.fetch(wanted, seen.append)
    assert seen[0].done > 20 * MIB  # what had come was there
    assert (back.opened.blob, back.signature) == (sealed.opened.blob, sealed.signature)
    assert b"".join(back.read("gpu/0")) == BODY
    assert fetching.remove(wanted) is not None
    assert list(fetching.artifacts()) == []


@pytest.mark.parametrize("text", ["s3://", "s3://UPPER/x", "gs://kyb", "models", "http://x/y"])
def test_what_is_no_place_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadPlace, match="expected"):
        places.store(text, {})


def test_a_wrapping_key_that_is_none_is_told(
    tmp_path: Path, store: Store, seal: Callable[..., Any], wrapping: Path
) -> None:
    sealed = seal(store)
    (wrapping / "wrapping.key").write_text(b64encode(b"short").decode())
    given = Given(place=str(tmp_path / "bucket"))
    objects = Objects(given, store, SystemClock())
    with pytest.raises(NoStore, match=r"5 bytes \(expected 32, in base64\)"):
        objects.demote(Wanted(namespace=NAMESPACE, name=sealed.manifest.name))
