"""The ConfigMap `kyb-policies` into the bundle in force, and refused pods another chance.

Every replica publishes for itself, because every replica serves; only the leader tells of it and
touches a Node. Rule: pods are tried again only when the OPAs that judge them have the new policies.
They poll within seconds of each other, so that is `settle` after the bundle is served, and after
the OPA beside us has it, where there is one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from controller.bundles import BundleRefused
from controller.duties import Duty
from controller.publication import Publication
from kybernate.api import names, policy_files
from kybernate.api.errors import Malformed
from kybernate.clients.clock import Clock
from kybernate.clients.errors import NotFound
from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Reflector
from kybernate.clients.resources import CONFIGMAPS, NODES
from kybernate.model.ids import Revision
from kybernate.model.verdict import EventReason
from kybernate.runtime.logs import get_logger

CONFIGMAP = "kyb-policies"
_WAIT = 0.5  # seconds between two questions to an OPA that has not loaded the bundle yet
_LEADERLESS = 30.0  # seconds: twice the length of the leader's Lease
_ACTION = "Publish"


class Loaded(Protocol):
    """The OPA beside us. A part of `kybernate.clients.policy.Policy`."""

    def revision(self) -> Revision | None:
        """What it answers with; None where nobody answers."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the latest offer. `fault` is empty where it is in force."""

    revision: str
    fault: str = ""


class Policies:
    """Watches the ConfigMap and publishes it. `duty` runs on every replica."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        namespace: str,
        publication: Publication,
        told: Callable[[ObjectRef, Outcome], None],
    ) -> None:
        self._publication, self._told = publication, told
        self._maps = Reflector(
            kube,
            CONFIGMAPS,
            namespace=namespace,
            field_selector=f"metadata.name={CONFIGMAP}",
            on_change=self._changed,
        )
        self.watches = (self._maps,)
        self.duty: Duty[tuple[str, str]] = Duty("policies", clock, self.look, self._maps.items)
        self._last: Outcome | None = None
        self._log = get_logger(duty="policies")

    def look(self, key: tuple[str, str]) -> None:
        """Offer what the ConfigMap says. Raises OpaUnusable, OSError: it is offered again."""
        found = self._maps.get(key)
        if found is None:
            return  # taken away: what is in force stays
        before = self._publication.current
        outcome = self._offer(found.get("data") or {})
        unchanged = before is not None and not outcome.fault and before.revision == outcome.revision
        if outcome == self._last or (self._last is None and unchanged):
            self._last = outcome
            return
        self._last = outcome
        self._log.info("policies", revision=outcome.revision, fault=outcome.fault)
        self._told(_reference(found), outcome)

    def _offer(self, members: Mapping[str, str]) -> Outcome:
        try:
            bundle = self._publication.offer(policy_files.from_keys(members))
        except Malformed as problem:
            return Outcome("", str(problem))
        except BundleRefused as refused:
            return Outcome(refused.revision, "; ".join(refused.reasons))
        return Outcome(bundle.revision)

    def _changed(self, change: Change[dict[str, Any]]) -> None:
        self.duty.touch(change.key)


class Announcer:
    """Tells of policies by events on the ConfigMap, where this replica leads.

    What became known while nobody led is told by the next leader, if that is soon: later, it was
    somebody else's to tell.
    """

    def __init__(self, events: EventRecorder, clock: Clock, leading: Callable[[], bool]) -> None:
        self._events, self._clock, self._leading = events, clock, leading
        self._untold: tuple[float, ObjectRef, Outcome] | None = None

    def __call__(self, configmap: ObjectRef, outcome: Outcome) -> None:
        """One event for each outcome."""
        self._untold = (self._clock.monotonic(), configmap, outcome)
        if self._leading():
            self.start()

    def start(self) -> None:
        """We lead now."""
        untold, self._untold = self._untold, None
        if untold is not None and self._clock.monotonic() - untold[0] <= _LEADERLESS:
            self._tell(*untold[1:])

    def _tell(self, configmap: ObjectRef, outcome: Outcome) -> None:
        reason, note = (
            (EventReason.POLICY_REFUSED, f"the policies before stay in force: {outcome.fault}")
            if outcome.fault
            else (EventReason.POLICY_PUBLISHED, f"policies {outcome.revision} are in force")
        )
        self._events.record(configmap, reason, _ACTION, note, warning=bool(outcome.fault))


@dataclass(frozen=True, slots=True)
class _Since:
    revision: str
    at: float


class Waking:
    """Has the scheduler try refused pods again, by one annotation of one managed Node.

    Any change of a Node's annotations puts every pod that the extender refused back into the
    scheduler's queue; one Node is enough, and the value says for which policies that was done, and
    how often where it is done again for the same: others may have been in force between, too
    shortly to be told of here, and long enough to refuse somebody.
    """

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        revision: Callable[[], str | None],
        opa: Loaded | None,
        nodes: Callable[[], Iterable[str]],
        settle: float,
    ) -> None:
        self._kube, self._clock, self._settle = kube, clock, settle
        self._revision, self._opa, self._nodes = revision, opa, nodes
        self._since: _Since | None = None
        self._latest: str | None = None
        self._owed = False  # whether policies have changed since the last time
        self.duty: Duty[str] = Duty("waking", clock, self.look, lambda: [CONFIGMAP])
        self._log = get_logger(duty="waking")

    def look(self, _key: str = CONFIGMAP) -> float | None:
        """Annotate a Node once the policies in force are what pods are judged by."""
        revision = self._revision()
        if revision is None:
            return None
        self._owed |= self._latest not in (None, revision)
        self._latest = revision
        if self._opa is not None and self._opa.revision() != revision:
            self._since = None
            return _WAIT
        now = self._clock.monotonic()
        if self._since is None or self._since.revision != revision:
            self._since = _Since(revision, now)
        left = self._since.at + self._settle - now
        if left > 0:
            return left
        self._annotate(revision)
        return None

    def _annotate(self, revision: str) -> None:
        for name in self._nodes():
            try:
                metadata = self._kube.get(NODES, name)["metadata"]
                said = (metadata.get("annotations") or {}).get(names.POLICY_REVISION, "")
                if self._owed or said.partition("+")[0] != revision:
                    value = _once_more(said, revision)
                    patch = {"metadata": {"annotations": {names.POLICY_REVISION: value}}}
                    self._kube.patch(NODES, name, patch)
                    self._log.info("refused pods are tried again", node=name, revision=revision)
                self._owed = False
                return
            except NotFound:
                continue  # a GpuNode whose Node is gone; the next one does as well


def _once_more(said: str, revision: str) -> str:
    """A value that is another one than `said`."""
    before, _, times = said.partition("+")
    return (
        revision
        if before != revision
        else f"{revision}+{int(times) + 1 if times.isdecimal() else 1}"
    )


def _reference(obj: Mapping[str, Any]) -> ObjectRef:
    metadata = obj["metadata"]
    return ObjectRef(
        api_version="v1",
        kind="ConfigMap",
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata.get("uid", ""),
    )
