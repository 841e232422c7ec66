"""The sentences: one event and one kept decision for everything that is decided or happens."""

from collections.abc import Callable, Iterable
from typing import Protocol

from kybernate.api import timestamps
from kybernate.clients.clock import Clock
from kybernate.clients.events import ObjectRef
from kybernate.decisions.switching import SwitchPlan
from kybernate.decisions.tenancy import Tenancy
from kybernate.decisions.tiers import Move
from kybernate.model.gpu import Group
from kybernate.model.ids import NodeName, PodUid, Revision, WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.verdict import Decision, EventReason, Reason, Refusal
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.disk.records import STATES, Record
from nodeagent.lives.life import Life
from nodeagent.lives.phases import PhaseTime
from nodeagent.stories.stage import phases_text

_Life = tuple[WorkloadKey, PodUid]
_PLACES = {Tier.RAM: "RAM", Tier.NVME: "NVMe", Tier.OBJECT: "object storage"}

REFUSED = frozenset(
    {
        Reason.PROTECTED, Reason.MIN_RUNTIME, Reason.STICKY, Reason.PINNED, Reason.NOT_PARKABLE,
        Reason.INVARIANT, Reason.NO_HOST_MEMORY,
    }
)  # fmt: skip


class Decisions(Protocol):
    """`DecisionRecorder`, or a fake of it."""

    def record(
        self,
        workload: _Life,
        decision: Decision,
        action: str,
        *,
        related: _Life | None = None,
        warning: bool = False,
    ) -> None:
        """In the background."""


class Events(Protocol):
    """`EventRecorder`, or a fake of it."""

    def record(
        self, regarding: ObjectRef, reason: EventReason, action: str, note: str, *, warning: bool
    ) -> None:
        """In the background."""


class KubeTeller:
    """A `Teller` in Kubernetes' words."""

    def __init__(
        self,
        node: NodeName,
        decisions: Decisions,
        events: Events,
        revision: Callable[[], Revision],
        clock: Clock,
        steady: Clock,
    ) -> None:
        """`clock` is what people read; in `steady` the books count."""
        self._node = node
        self._decisions, self._events = decisions, events
        self._revision, self._clock, self._steady = revision, clock, steady
        self._log = get_logger(node=str(node))

    def seated(self, life: Life) -> None:
        """As the port says."""
        gpus = ", ".join(map(str, life.group.gpus))
        text = f"seat {life.record.seat.id} of {self._node} (GPU {gpus})"
        self._tell(_of(life), EventReason.SEAT_ASSIGNED, text, "Assigning")

    def waits(self, waiter: Tenancy, why: Refusal) -> None:
        """As the port says."""
        party = (waiter.key, waiter.uid)
        if why.reason is Reason.POLICY_UNAVAILABLE:
            reason = EventReason.POLICY_UNAVAILABLE
        elif why.reason in REFUSED:
            reason = EventReason.PREEMPTION_REFUSED
        else:
            reason = EventReason.WAITING_FOR_GPU
        gpus = ", ".join(map(str, waiter.gpus))
        now = self._steady.now()
        waited = now - (waiter.wanted_since or now)
        text = f"has waited {waited:.1f} s for GPU {gpus}: {why}"
        if not waiter.waits:
            text = f"is to be parked: {why}"
        warning = reason is EventReason.POLICY_UNAVAILABLE
        self._tell(party, reason, text, "Waiting", seconds=waited, warning=warning)

    def planned(self, plan: SwitchPlan, parties: tuple[Tenancy, ...]) -> None:
        """As the port says."""
        if not plan.park:
            return
        text = f"{plan}" + (f"; overrides policy: {plan.overrides}" if plan.overrides else "")
        lives = {party.key: (party.key, party.uid) for party in parties}
        incoming = lives.get(plan.resume) if plan.resume else None
        seconds = sum(item.seconds for item in plan.items)
        for key in plan.park:
            reason = _planned_for(plan)
            self._tell(
                lives[key], reason, text, "Preempting", seconds=seconds, related=incoming,
                revision=plan.revision,
            )  # fmt: skip
        if incoming is not None:
            self._tell(
                incoming, EventReason.PREEMPTION_PLANNED, text, "Preempting", seconds=seconds,
                related=lives[plan.park[0]], revision=plan.revision,
            )  # fmt: skip

    def parked(self, life: Life, plan: SwitchPlan) -> None:
        """As the port says."""
        seconds = life.last_switch_seconds
        whom = f" for {plan.resume}" if plan.resume else ""
        text = f"parked{whom} in {seconds:.2f} s: {phases_text(life.last_switch)}"
        self._tell(
            _of(life), EventReason.PARKED, text, "Parking", seconds=seconds, revision=plan.revision
        )

    def started(self, life: Life, plan: SwitchPlan) -> None:
        """As the port says."""
        self._runs(life, plan, EventReason.STARTED, "Starting")

    def resumed(self, life: Life, plan: SwitchPlan) -> None:
        """As the port says."""
        self._runs(life, plan, EventReason.RESUMED, "Resuming")

    def _runs(self, life: Life, plan: SwitchPlan, reason: EventReason, action: str) -> None:
        seconds = life.last_switch_seconds
        after = f" after {', '.join(k.name for k in plan.park)}" if plan.park else ""
        gpus = ", ".join(map(str, life.group.gpus))
        text = f"active on GPU {gpus}{after} in {seconds:.2f} s: {phases_text(life.last_switch)}"
        text += f"; {plan.asked_by}" if plan.asked_by else ""
        self._tell(
            _of(life), reason, text, action, seconds=seconds, revision=plan.revision
        )  # fmt: skip

    def park_failed(self, life: Life, why: str) -> None:
        """As the port says."""
        self._tell(_of(life), EventReason.PARK_FAILED, why, "Parking", warning=True)

    def resume_failed(self, life: Life, why: str) -> None:
        """As the port says."""
        self._tell(_of(life), EventReason.RESUME_FAILED, why, "Resuming", warning=True)

    def sealed(self, life: Life, sealed: Sealed, phases: Iterable[PhaseTime]) -> None:
        """As the port says."""
        phases = tuple(phases)
        seconds = sum(phase.seconds for phase in phases)
        added = sealed.manifest.facts.added
        size = f"{sealed.size / 2**20:.0f} MiB, {added / 2**20:.0f} MiB of it new on this disk"
        text = f"checkpoint {sealed.manifest.name} ({size}) made in {seconds:.2f} s: "
        text += phases_text(phases)
        self._tell(_of(life), EventReason.CHECKPOINTED, text, "Sealing", seconds=seconds)

    def seal_failed(self, life: Life, why: str) -> None:
        """As the port says."""
        self._tell(_of(life), EventReason.CHECKPOINT_FAILED, why, "Sealing", warning=True)

    def woken(self, life: Life) -> None:
        """As the port says."""
        seconds = sum(phase.seconds for phase in life.woke)
        text = f"made from checkpoint {life.record.checkpoint} in {seconds:.2f} s: "
        text += phases_text(life.woke)
        self._tell(_of(life), EventReason.WOKEN, text, "Waking", seconds=seconds)

    def wake_failed(self, key: WorkloadKey, uid: PodUid, why: str) -> None:
        """As the port says."""
        self._tell((key, uid), EventReason.WAKE_FAILED, why, "Waking", warning=True)

    def demoted(self, life: Life, move: Move, phases: Iterable[PhaseTime]) -> None:
        """As the port says."""
        self._moved(
            life, move, EventReason.DEMOTED, f"demoted to {_PLACES[move.to]}", tuple(phases)
        )

    def promoted(self, life: Life, move: Move, phases: Iterable[PhaseTime]) -> None:
        """As the port says."""
        self._moved(
            life, move, EventReason.PROMOTED, f"promoted to {_PLACES[move.to]}", tuple(phases)
        )

    def _moved(
        self, life: Life, move: Move, reason: EventReason, did: str, phases: tuple[PhaseTime, ...]
    ) -> None:
        seconds = sum(phase.seconds for phase in phases)
        text = f"{did} in {seconds:.2f} s: {phases_text(phases)} ({move.why})"
        self._tell(
            _of(life), reason, text, "Tiering", seconds=seconds, revision=move.revision
        )  # fmt: skip

    def move_failed(self, life: Life, move: Move, why: str) -> None:
        """As the port says."""
        reason = EventReason.DEMOTE_FAILED if move.down else EventReason.PROMOTE_FAILED
        self._tell(_of(life), reason, why, "Tiering", warning=True)

    def quarantined(self, life: Life, why: str) -> None:
        """As the port says."""
        self._tell(_of(life), EventReason.QUARANTINED, why, "Quarantining", warning=True)

    def went(self, key: WorkloadKey, uid: PodUid, why: str) -> None:
        """As the port says."""
        self._tell((key, uid), EventReason.CHECKPOINT_SKIPPED, why, "Deleting", warning=True)

    def stranded(self, record: Record) -> None:
        """As the port says."""
        text = (
            f"group {record.seat.group} is not on {self._node} any more, or has other cards; it "
            f"stays {STATES[record.mark].value} until the group is back, or the pod is deleted"
        )
        self._tell((record.key, record.uid), EventReason.STRANDED, text, "Recovering", warning=True)

    def sick(self, group: Group, why: str) -> None:
        """As the port says."""
        reason = EventReason.GROUP_UNHEALTHY if why else EventReason.GROUP_HEALTHY
        note = f"group {group.name}: {why}" if why else f"group {group.name} is well again"
        self._log.warning("group health", group=group.name, why=why)
        node = ObjectRef(kind="Node", name=self._node, uid=self._node)  # as the kubelet refers
        self._events.record(node, reason, "Watching", note, warning=bool(why))

    def _tell(  # noqa: PLR0913 - an event's own vocabulary
        self,
        whom: _Life,
        reason: EventReason,
        text: str,
        action: str,
        *,
        seconds: float | None = None,
        related: _Life | None = None,
        revision: Revision | None = None,
        warning: bool = False,
    ) -> None:
        decision = Decision(
            time=timestamps.rfc3339(self._clock.now()),
            reason=reason,
            message=text,
            revision=str(revision or self._revision()),
            seconds=None if seconds is None else round(seconds, 3),
        )
        took = {} if decision.seconds is None else {"seconds": decision.seconds}
        self._log.info("told", reason=reason.value, workload=str(whom[0]), message=text, **took)
        self._decisions.record(whom, decision, action, related=related, warning=warning)


def _planned_for(plan: SwitchPlan) -> EventReason:
    if plan.idle:
        return EventReason.IDLE
    return EventReason.SLICE_ENDED if plan.slice_ended else EventReason.PREEMPTION_PLANNED


def _of(life: Life) -> _Life:
    return (life.key, life.record.uid)
