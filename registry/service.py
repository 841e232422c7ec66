"""
The Registry service.

Called by: gRPC; who may is `doors`. Rule: a request is read whole, with every bound checked, before
anything is written; a page has a bound whatever is asked for.
"""

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import grpc
import orjson

from kybernate.clients.pb import copies_pb2
from kybernate.clients.pb import registry_pb2 as pb
from kybernate.clients.pb import registry_pb2_grpc as rpc
from kybernate.clients.registry import messages
from kybernate.model.artifact import Identity, Wanted
from kybernate.model.ids import NodeName
from registry.catalogue import Catalogue, DatabaseAway, Story

if TYPE_CHECKING:
    Context = grpc.ServicerContext
else:
    Context = object

PAGE, LARGEST_PAGE = 100, 1000
TOGETHER = 1000  # occurrences in one request
LARGEST_INVENTORY = 100_000  # artifacts: a disk has no room for as many
WATCHERS = 16  # of the threads a server has; the others answer at once
LOOK_S = 0.5  # between looks for what another replica wrote

Observe = Callable[[str, int], None]


class Service(rpc.RegistryServicer):
    """As registry.proto says."""

    def __init__(self, catalogue: Catalogue, observe: Observe = lambda _kind, _count: None) -> None:
        """`observe` hears `written`, `known`, `found`, `missing`, and how many."""
        self._catalogue, self._observe = catalogue, observe
        self._watchers = threading.BoundedSemaphore(WATCHERS)
        self._news = threading.Condition()
        self._closed = False

    def close(self) -> None:
        """End what is being watched."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def Record(self, request: pb.RecordRequest, context: Context) -> pb.RecordReply:  # noqa: N802
        """All of it, or nothing."""
        with _answering(context):
            if len(request.occurrences) > TOGETHER:
                raise ValueError(f"occurrences: {len(request.occurrences)} (at most {TOGETHER})")
            told = [messages.read_occurrence(one) for one in request.occurrences]
            new = self._catalogue.record(told)
            self._tell_watchers()
            self._observe("written", new)
            self._observe("known", len(told) - new)
            return pb.RecordReply(epoch=self._catalogue.epoch(), written=new)

    def TakeInventory(  # noqa: N802
        self, request_iterator: Iterator[copies_pb2.CopiesHere], context: Context
    ) -> pb.InventoryReply:
        """Once all of it is here."""
        with _answering(context):
            inventory = messages.read_inventory(request_iterator, LARGEST_INVENTORY)
            found, missing = self._catalogue.take_inventory(inventory)
            self._tell_watchers()
            self._observe("found", found)
            self._observe("missing", missing)
            epoch = self._catalogue.epoch()
            return pb.InventoryReply(epoch=epoch, found=found, missing=missing)

    def List(self, request: pb.ListRequest, context: Context) -> pb.ListReply:  # noqa: N802
        """One row more is asked for than is told, to know whether there are more."""
        with _answering(context):
            size = _size(request.page_size)
            after = _read_token(request.page_token)
            rows = self._catalogue.rows(messages.read_wanted(request), after, size + 1)
            told, more = rows[:size], len(rows) > size
            token = _write_token(told[-1].artifact.identity) if more else ""
            return pb.ListReply(rows=map(messages.write_row, told), next_page_token=token)

    def Get(self, request: pb.GetRequest, context: Context) -> pb.GetReply:  # noqa: N802
        """Rows of a name."""
        with _answering(context):
            if not request.namespace or not request.name:
                raise ValueError("namespace, name: both are needed")
            wanted = Wanted(namespace=request.namespace, name=request.name)
            return pb.GetReply(rows=map(messages.write_row, self._catalogue.rows(wanted)))

    def History(  # noqa: N802
        self, request: pb.HistoryRequest, context: Context
    ) -> pb.HistoryReply:
        """One entry more is asked for than is told."""
        with _answering(context):
            size = _size(request.page_size)
            entries = self._catalogue.history(_story(request), request.after, size + 1)
            told = map(messages.write_entry, entries[:size])
            return pb.HistoryReply(entries=told, more=len(entries) > size)

    def Watch(  # noqa: N802
        self, request: pb.HistoryRequest, context: Context
    ) -> Iterator[pb.Entry]:
        """Until either side ends it."""
        with self._seat(context), _answering(context):
            story, after = _story(request), request.after
            while context.is_active() and not self._closed:
                for entry in self._catalogue.history(story, after, LARGEST_PAGE):
                    yield messages.write_entry(entry)
                    after = entry.number
                with self._news:
                    if not self._closed:
                        self._news.wait(LOOK_S)

    def _tell_watchers(self) -> None:
        with self._news:
            self._news.notify_all()

    @contextmanager
    def _seat(self, context: Context) -> Iterator[None]:
        if not self._watchers.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{WATCHERS} others watch already")
        try:
            yield
        finally:
            self._watchers.release()


@contextmanager
def _answering(context: Context) -> Iterator[None]:
    try:
        yield
    except ValueError as fault:
        _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(fault))
    except DatabaseAway as away:
        _refuse(context, grpc.StatusCode.UNAVAILABLE, f"the database does not answer: {away}")


def _refuse(context: Context, code: grpc.StatusCode, text: str) -> NoReturn:
    context.abort(code, text[:1000])
    raise AssertionError  # abort has raised


def _size(asked: int) -> int:
    return min(asked, LARGEST_PAGE) if asked else PAGE


def _story(request: pb.HistoryRequest) -> Story:
    node = NodeName(request.node) if request.HasField("node") else None
    return Story(namespace=request.namespace, name=request.name, node=node)


def _write_token(identity: Identity) -> str:
    parts = [identity.namespace, identity.name, identity.signature]
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode()


def _read_token(token: str) -> Identity | None:
    if not token:
        return None
    try:
        namespace, name, signature = map(str, orjson.loads(base64.urlsafe_b64decode(token)))
    except (ValueError, TypeError):
        raise ValueError(
            f"page_token: {token[:80]!r} (expected the one of the reply before)"
        ) from None
    return Identity(namespace=namespace, name=name, signature=signature)
