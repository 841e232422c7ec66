"""
Events (events.k8s.io/v1) from a background queue: `kubectl get events` tells the story.

Called by: every process that decides. Rules: `record` never blocks and never fails; notes carry the
numbers, reasons are constants; `event_series.py` says what is written and what is only counted.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kybernate.api import timestamps
from kybernate.clients.clock import Clock
from kybernate.clients.errors import AlreadyExists, NotFound, Refused
from kybernate.clients.event_series import (
    EventBook,
    Limits,
    ObjectRef,
    Occurrence,
    Series,
    shorten,
)
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.outbox import Outbox
from kybernate.clients.resources import EVENTS
from kybernate.model.verdict import EventReason

__all__ = ["EventRecorder", "Limits", "ObjectRef"]

_INSTANCE_LIMIT = 128  # characters of reportingInstance and action the API server accepts
_NAME_LIMIT = 200  # of the object's name in the event's name, which has 253 in all


@dataclass(slots=True)
class _Item:
    occurrence: Occurrence
    noted: bool = False
    series: Series | None = None  # to be written; None: only counted, or not noted yet


class EventRecorder:
    """Writes events of one controller, for example `kyb.ai/extender`."""

    def __init__(
        self,
        kube: Kube,
        controller: str,
        instance: str,
        clock: Clock,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._kube = kube
        self._controller = controller
        self._instance = instance[:_INSTANCE_LIMIT]
        self._clock = clock
        self._book = EventBook(limits or Limits())
        self._serial = 0
        self._outbox: Outbox[_Item] = Outbox("events", clock, self._deliver, idle=self._write_ended)

    @property
    def dropped(self) -> int:
        """Events that did not fit into the queue, were refused, or grew too old."""
        return self._outbox.dropped

    @property
    def limited(self) -> int:
        """Events that the rate limit of their object swallowed."""
        return self._book.limited

    def record(
        self,
        regarding: ObjectRef,
        reason: EventReason,
        action: str,
        note: str,
        *,
        warning: bool = False,
        related: ObjectRef | None = None,
    ) -> None:
        """Say that it happened. A note is cut to 1024 bytes."""
        occurrence = Occurrence(
            regarding=regarding,
            reason=reason,
            action=action[:_INSTANCE_LIMIT],
            note=shorten(note),
            at=self._clock.now(),
            warning=warning,
            related=related,
        )
        self._outbox.put(_Item(occurrence))

    def flush(self, timeout: float) -> bool:
        """Wait until everything recorded so far is written or dropped."""
        return self._outbox.flush(timeout)

    def stop(self) -> None:
        """Write what is queued for at most two seconds, then end."""
        self._outbox.stop()

    def _deliver(self, item: "_Item") -> None:
        # After a Retry the same item comes again: it must not be counted twice.
        if not item.noted:
            item.noted = True
            item.series = self._book.note(item.occurrence)
        if item.series is not None:
            self._write(item.series)

    def _write_ended(self) -> None:
        # A namespace that is gone refuses for ever: its series would hold all later ones back.
        for series in self._book.ended(self._clock.now()):
            with suppress(Refused):
                self._write(series)

    def _write(self, series: Series) -> None:
        if series.written_count == 0:
            self._create(series)
        else:
            self._count(series)
        series.written_count = series.count
        series.written_at = self._clock.now()

    def _create(self, series: Series) -> None:
        # One name per series, also when a lost answer makes us try again.
        series.name = series.name or self._name(series.first)
        body = self._body(series)
        with suppress(AlreadyExists):  # a try before, whose answer was lost, arrived after all
            self._kube.create(EVENTS, body, body["metadata"]["namespace"])

    def _count(self, series: Series) -> None:
        namespace = series.first.regarding.namespace or "default"
        patch = {"series": _series(series)}
        try:
            self._kube.patch(EVENTS, series.name, patch, namespace)
        except NotFound:  # it has expired: events live an hour
            series.name = ""
            self._create(series)

    def _name(self, occurrence: Occurrence) -> str:
        self._serial += 1
        nanoseconds = int(occurrence.at * 1e9) + self._serial
        return f"{occurrence.regarding.name[:_NAME_LIMIT].rstrip('-.')}.{nanoseconds:x}"

    def _body(self, series: Series) -> Obj:
        first = series.first
        body: Obj = {
            "metadata": {"name": series.name, "namespace": first.regarding.namespace or "default"},
            "eventTime": timestamps.rfc3339_micro(first.at),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "action": first.action,
            "reason": first.reason.value,
            "type": "Warning" if first.warning else "Normal",
            "note": first.note,
            "regarding": _reference(first.regarding),
        }
        if first.related is not None:
            body["related"] = _reference(first.related)
        if series.count > 1:
            body["series"] = _series(series)
        return body


def _series(series: Series) -> dict[str, Any]:
    return {"count": series.count, "lastObservedTime": timestamps.rfc3339_micro(series.last)}


def _reference(ref: ObjectRef) -> dict[str, str]:
    whole = {
        "apiVersion": ref.api_version,
        "kind": ref.kind,
        "namespace": ref.namespace,
        "name": ref.name,
        "uid": ref.uid,
    }
    return {name: value for name, value in whole.items() if value}
