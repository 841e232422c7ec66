"""Changes of state, published to the feed as they happen. Listens to the coordinator."""

from collections.abc import Mapping

from kybernate.decisions.books import Books
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.verdict import Reason
from kybernate.model.workload import Desired, State
from nodeagent.lives.feed import Doing, Ended, Feed, Update

_DOING: Mapping[State, Doing] = {
    State.PARKING: Doing.PARKING,
    State.ACTIVATING: Doing.RESUMING,
    State.SEALING: Doing.SEALING,
    State.WAKING: Doing.WAKING,
    State.ACTIVE: Doing.DONE,
}


class Changes:
    """`changed` is the listener."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def changed(self, before: Books, after: Books) -> None:
        """From the coordinator, after every change."""
        for key, tenancy in after.tenancies.items():
            old = before.tenancies.get(key)
            if old is tenancy:
                continue
            if old is None or old.state is not tenancy.state:
                self._feed.publish(_update(tenancy))
            if tenancy.desired is Desired.PARKED and (old is None or old.desired != Desired.PARKED):
                why = Ended(ok=False, reason=Reason.WANTED_PARKED)
                self._feed.publish(_update(tenancy, ended=why))
        for key in before.tenancies.keys() - after.tenancies.keys():
            self._feed.publish(_gone(before.tenancies[key]))


def _update(tenancy: Tenancy, ended: Ended | None = None) -> Update:
    return Update(
        key=tenancy.key,
        uid=tenancy.uid,
        state=tenancy.state,
        doing=_DOING.get(tenancy.state, Doing.WAITING),
        ended=ended,
    )


def _gone(tenancy: Tenancy) -> Update:
    return Update(
        key=tenancy.key,
        uid=tenancy.uid,
        state=State.ABSENT,
        doing=Doing.DONE,
        message="its container ended",
        ended=Ended(ok=False, reason=Reason.UNKNOWN_WORKLOAD, message="its container ended"),
    )
