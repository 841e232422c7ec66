"""Streams that wait leave room for calls that are answered at once."""

import threading
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from kybernate.clients.pb import agent_pb2 as pb
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State
from nodeagent.api import agent_service
from nodeagent.api.agent_service import AgentService
from nodeagent.lives.feed import Doing, Feed, Update

_NEWS = Update(
    key=WorkloadKey("default", "a"), uid=PodUid("u"), state=State.ACTIVE, doing=Doing.DONE,
    message="news",
)  # fmt: skip


class Aborted(Exception):
    """What gRPC raises out of a call that ends in a status."""


class Context:
    """A caller that stays for some looks."""

    def __init__(self) -> None:
        self._looks = iter(range(10))

    def is_active(self) -> bool:
        return next(self._looks, None) is not None

    def abort(self, code: grpc.StatusCode, _: str) -> None:
        raise Aborted(code)


def test_one_stream_too_many_is_told_to_come_again_and_gets_the_next_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_service, "STREAMS", 2)
    feed = Feed()
    coordinator = SimpleNamespace(books=SimpleNamespace(tenancies={}))
    serving: Any = SimpleNamespace(feed=feed, coordinator=coordinator)
    service = AgentService(serving)

    def watch() -> Any:
        return service.Watch(pb.WatchRequest(), Context())  # type: ignore[arg-type]

    first, second = watch(), watch()
    heard = [_next_of(feed, one) for one in (first, second)]
    assert [one.message for one in heard] == ["news", "news"]
    with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
        next(watch())
    first.close()
    assert _next_of(feed, watch()).message == "news"


def _next_of(feed: Feed, stream: Any) -> Any:
    """A stream listens from its first step on, so it is told while it takes that."""
    told = threading.Event()

    def tell() -> None:
        while not told.wait(0.01):
            feed.publish(_NEWS)

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        return next(stream)
    finally:
        told.set()
        teller.join()
