"""
A policy without OPA: the rules of `policies/kyb` for tenants of one class, in Python.

Used by: tests of whoever asks policy. It passes the same contract suite as the real one.
Rule: it knows one set of terms, given to it, and no calendar; whoever tests Rego's finer points
asks the real one.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from kybernate.model.callers import NOBODY, Callers
from kybernate.model.engines import Engines
from kybernate.model.ids import Revision
from kybernate.model.policy import (
    AdmissionQuestion,
    AdmissionVerdict,
    HolderTerms,
    ParkedFacts,
    PlacementQuestion,
    PlacementVerdict,
    PreemptionQuestion,
    PreemptionVerdict,
    RetentionQuestion,
    RetentionVerdict,
    SharingQuestion,
    SharingVerdict,
    TenantFacts,
    TieringQuestion,
    TieringVerdict,
    TimesliceQuestion,
    TimesliceVerdict,
)
from kybernate.model.storelimits import NO_LIMITS, StoreLimits
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Desired

Question = (
    AdmissionQuestion
    | PlacementQuestion
    | PreemptionQuestion
    | RetentionQuestion
    | SharingQuestion
    | TieringQuestion
    | TimesliceQuestion
)
Verdict = (
    AdmissionVerdict
    | PlacementVerdict
    | PreemptionVerdict
    | RetentionVerdict
    | SharingVerdict
    | TieringVerdict
    | TimesliceVerdict
)
V = TypeVar(
    "V",
    AdmissionVerdict,
    PlacementVerdict,
    PreemptionVerdict,
    RetentionVerdict,
    SharingVerdict,
    TieringVerdict,
    TimesliceVerdict,
)

_REVISION = Revision("sha256:0123456789ab")
# Of the shipped data, what says the form of all.
_TOLD_BY = Engines(
    requests=frozenset({"vllm:num_requests_running", "vllm:num_requests_waiting"}),
    steps=frozenset({"training_steps_total"}),
)
_GROUNDS = {"HolderWantedParked", "HigherPriority", "HolderIdle", "SliceEnded", "WaitedLongEnough"}


@dataclass(slots=True, kw_only=True)
class FakePolicy:
    """Answers by its terms, or what `say` told it to. Every field may be changed while it is used.

    `unhealthy` classes of nodes are denied by the question itself; `denied_classes` and
    `penalty_seconds` add to that, by class id. `away` refuses everything.
    """

    min_runtime_seconds: float = 5.0
    slice_seconds: float = 20.0
    idle_after_seconds: float = 5.0
    collation_max_wait_seconds: float = 30.0
    switches_per_minute_max: int = 20
    running_request_grace_seconds: float = 10.0
    park_idle: str = "asked"  # or always, contested
    demote_after_seconds: float = 600.0
    keep_ram_free_percent: float = 20.0
    store_after_seconds: float = 3600.0
    keep_nvme_free_percent: float = 20.0
    stage_ahead: int = 1
    expect_percent: float = 80.0
    keep_newest: int | None = None
    grace_seconds: float = 600.0
    quota_bytes: int | None = None
    store: StoreLimits = NO_LIMITS
    shared: frozenset[tuple[str, str]] = frozenset()  # gold images' namespaces, and with which
    defaults: dict[str, str] = field(default_factory=lambda: {"kyb.ai/class": "inference"})
    denials: tuple[tuple[str, str], ...] = ()
    denied_classes: dict[str, str] = field(default_factory=dict)
    penalty_seconds: dict[str, float] = field(default_factory=dict)
    in_force: Revision = _REVISION
    ignored: Callers = NOBODY
    told_by: Engines = _TOLD_BY
    away: bool = False
    asked: list[Question] = field(default_factory=list)
    _said: dict[type, Verdict | Refusal] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, kind: type[Verdict], answer: Verdict | Refusal | None) -> None:
        """Answer every question for a `kind` of verdict like this; None: by the terms again."""
        with self._lock:
            self._said.pop(kind, None)
            if answer is not None:
                self._said[kind] = answer

    def admission(self, question: AdmissionQuestion) -> AdmissionVerdict | Refusal:
        """As the port says."""
        annotations = question.pod.get("metadata", {}).get("annotations") or {}
        given = {name: text for name, text in self.defaults.items() if name not in annotations}
        verdict = AdmissionVerdict(deny=self.denials, defaults=given, revision=self.in_force)
        return self._answer(question, verdict)

    def placement(self, question: PlacementQuestion) -> PlacementVerdict | Refusal:
        """As the port says."""
        unhealthy = {node.id: "Unhealthy" for node in question.classes if not node.healthy}
        asked = {node.id for node in question.classes}
        verdict = PlacementVerdict(
            deny={
                id_: why
                for id_, why in {**self.denied_classes, **unhealthy}.items()
                if id_ in asked
            },
            penalty_seconds={k: v for k, v in self.penalty_seconds.items() if k in asked},
            revision=self.in_force,
        )
        return self._answer(question, verdict)

    def preemption(self, question: PreemptionQuestion) -> PreemptionVerdict | Refusal:
        """As the port says."""
        return self._answer(question, self._judge(question))

    def timeslice(self, question: TimesliceQuestion) -> TimesliceVerdict | Refusal:
        """As the port says."""
        return self._answer(question, self._turn(question))

    def tiering(self, question: TieringQuestion) -> TieringVerdict | Refusal:
        """As the port says."""
        return self._answer(question, self._tier(question))

    def _tier(self, question: TieringQuestion) -> TieringVerdict:
        one = question.workload
        if question.parked is not None:
            return self._parked(question, question.parked)
        min_left = self._min_runtime(one) - one.running_seconds
        # In the order of `_reason` in tiering.rego.
        reasons = (
            ("Pinned", one.pinned, None),
            ("WantedActive", one.desired is Desired.ACTIVE, None),
            ("RunningRequest", (one.in_flight or 0) > 0, None),
            ("Contested", self.park_idle not in ("always", "asked"), None),
            ("NotAsked", self.park_idle == "asked" and one.idle_after_seconds is None, None),
            ("MinRuntime", min_left > 0, min_left),
            ("IdleUnknown", one.idle_seconds is None, None),
            ("NotIdleYet", self._idle_left(one) > 0, self._idle_left(one)),
            ("NoRoom", one.vram > question.ram_free, None),
        )
        stays = next(((why, after) for why, holds, after in reasons if holds), None)
        why, after = stays or ("Idle", None)
        tier = Tier.VRAM if stays else Tier.RAM
        return TieringVerdict(tier=tier, reason=why, after_seconds=after, revision=self.in_force)

    def _parked(self, question: TieringQuestion, parked: ParkedFacts) -> TieringVerdict:
        one, kept = question.workload, parked.ram_capacity * self.keep_ram_free_percent / 100
        long_left = self.demote_after_seconds - parked.seconds
        usual, left = one.asked_every_seconds, None
        if usual is not None:
            left = usual * self.expect_percent / 100 - parked.seconds
        spare = question.ram_free - one.vram >= kept
        due = one.desired is Desired.AUTO and left is not None and left <= 0
        expected = due and spare
        next_one = parked.place is not None and parked.place < self.stage_ahead
        store_left = self.store_after_seconds - parked.seconds
        nvme_kept = parked.nvme_capacity * self.keep_nvme_free_percent / 100
        scarce, waits = parked.nvme_free < nvme_kept, parked.place is not None
        stored = one.vram <= parked.object_free
        ram_room = one.vram + parked.ram_to_come <= question.ram_free
        above = Tier.OBJECT
        if ram_room and not parked.ram_short and (next_one or expected):
            above = Tier.RAM
        elif one.vram <= parked.nvme_free and not parked.nvme_short:
            fits = parked.nvme_free - one.vram >= nvme_kept
            above = Tier.NVME if next_one or fits else above
        # In the order of `_in_ram`, `_on_nvme` and `_in_object` in parked.rego.
        in_ram = (
            ("NoNvmeRoom", Tier.RAM, one.vram > parked.nvme_free),
            ("RoomNeeded", Tier.NVME, parked.ram_short > 0),
            ("Waits", Tier.RAM, parked.place is not None),
            ("RamIsFree", Tier.RAM, question.ram_free >= kept),
            ("ParkedLately", Tier.RAM, long_left > 0),
            ("ParkedLong", Tier.NVME, True),
        )
        long = store_left <= 0 and scarce and stored and not waits and not due
        on_nvme = (
            ("NvmeNeeded", Tier.OBJECT, parked.nvme_short > 0 and stored),
            ("LongOnNvme", Tier.OBJECT, long),
            ("NoRamRoom", Tier.NVME, not ram_room),
            ("RoomNeeded", Tier.NVME, parked.ram_short > 0),
            ("Next", Tier.RAM, next_one),
            ("Expected", Tier.RAM, expected),
            ("NotExpected", Tier.NVME, True),
        )
        in_object = (
            ("NotExpected", Tier.OBJECT, not next_one and not due),
            ("NoRoomAbove", Tier.OBJECT, above is Tier.OBJECT),
            ("Next", above, next_one),
            ("Expected", above, True),
        )
        rules = {Tier.RAM: in_ram, Tier.NVME: on_nvme, Tier.OBJECT: in_object}[parked.tier]
        why, tier = next((why, tier) for why, tier, holds in rules if holds)
        again = {long_left} if why == "ParkedLately" else set()
        if why == "NotExpected" and left is not None and left > 0:
            again.add(left)
        if parked.tier is Tier.NVME and scarce and store_left > 0:
            again.add(store_left)
        return TieringVerdict(
            tier=tier,
            reason=why,
            after_seconds=min(again, default=None),
            value=parked.fetch_seconds / _every(one, parked),
            revision=self.in_force,
        )

    def sharing(self, question: SharingQuestion) -> SharingVerdict | Refusal:
        """As the port says."""
        allow = (question.namespace, question.by) in self.shared
        reason = "Shared" if allow else "NotShared"
        verdict = SharingVerdict(allow=allow, reason=reason, revision=self.in_force)
        return self._answer(question, verdict)

    def retention(self, question: RetentionQuestion) -> RetentionVerdict | Refusal:
        """As the port says."""
        verdict = RetentionVerdict(
            keep=_kept(question, question.keep or self.keep_newest),
            grace_seconds=self.grace_seconds,
            quota_bytes=self.quota_bytes,
            revision=self.in_force,
        )
        return self._answer(question, verdict)

    def ignored_callers(self) -> Callers | Refusal:
        """As the port says."""
        if self.away:
            return Refusal(reason=Reason.POLICY_UNAVAILABLE, detail="the fake is away")
        return self.ignored

    def engines(self) -> Engines | Refusal:
        """As the port says."""
        if self.away:
            return Refusal(reason=Reason.POLICY_UNAVAILABLE, detail="the fake is away")
        return self.told_by

    def store_limits(self) -> StoreLimits | Refusal:
        """As the port says."""
        if self.away:
            return Refusal(reason=Reason.POLICY_UNAVAILABLE, detail="the fake is away")
        return self.store

    def revision(self) -> Revision | None:
        """As the port says."""
        return None if self.away else self.in_force

    def _answer(self, question: Question, verdict: V) -> V | Refusal:
        with self._lock:
            self.asked.append(question)
            said = self._said.get(type(verdict))
        if self.away:
            return Refusal(reason=Reason.POLICY_UNAVAILABLE, detail="the fake is away")
        if said is None:
            return verdict
        assert isinstance(said, type(verdict) | Refusal)
        return said

    def _judge(self, question: PreemptionQuestion) -> PreemptionVerdict:
        reason = self._reason(question)
        return PreemptionVerdict(
            allow=reason in _GROUNDS,
            reason=reason,
            order=_order(question.holder),
            retry_seconds=self._retry_seconds(question, reason),
            revision=self.in_force,
        )

    def _reason(self, question: PreemptionQuestion) -> str:
        incoming, holder = question.incoming, question.holder
        early = self._early_ground(question)
        switches_left = question.switches_last_minute < self.switches_per_minute_max
        # In the order of `_reason` in preemption.rego.
        reasons = (
            ("IncomingWantedParked", incoming.desired is Desired.PARKED),
            ("Pinned", holder.desired is Desired.ACTIVE or self._pinned(holder)),
            ("HolderWantedParked", holder.desired is Desired.PARKED),
            ("MinRuntime", self._min_runtime(holder) > holder.running_seconds),
            ("RunningRequest", self._grace_left(question) > 0 < (holder.in_flight or 0)),
            (early, bool(early) and switches_left),
            ("SliceEnded", holder.running_seconds >= question.slice_seconds),
            ("WaitedLongEnough", self._collation_left(question) <= 0),
            ("SwitchLimit", bool(early)),
        )
        return next((reason for reason, holds in reasons if holds), "Sticky")

    def _pinned(self, holder: TenantFacts) -> bool:
        return holder.pinned and holder.desired is not Desired.PARKED

    def _grace_left(self, question: PreemptionQuestion) -> float:
        left = question.slice_seconds - question.holder.running_seconds
        return left + self.running_request_grace_seconds

    def _early_ground(self, question: PreemptionQuestion) -> str:
        if question.incoming.priority > question.holder.priority:
            return "HigherPriority"
        return "HolderIdle" if self._idle_left(question.holder) <= 0 else ""

    def _retry_seconds(self, question: PreemptionQuestion, reason: str) -> float | None:
        if reason == "MinRuntime":
            return self._min_runtime(question.holder) - question.holder.running_seconds
        if reason == "RunningRequest":
            return self._grace_left(question)
        if reason not in ("Sticky", "SwitchLimit"):
            return None
        slice_left = question.slice_seconds - question.holder.running_seconds
        waits = (slice_left, self._collation_left(question), self._idle_left(question.holder))
        return min((wait for wait in waits if 0 < wait < float("inf")), default=None)

    def _turn(self, question: TimesliceQuestion) -> TimesliceVerdict:
        line = fair_order(question.waiting)
        if not line:
            return self._timeslice(question, "NobodyWaits")
        first = line[0]
        judged = [
            self._judge(
                PreemptionQuestion(
                    incoming=first,
                    holder=holder,
                    group=question.group,
                    calendar=question.calendar,
                    slice_seconds=self._slice(holder),
                )
            )
            for holder in question.holders
            if _contend(holder, first)
        ]
        refused = [one for one in judged if not one.allow]
        if refused:
            waits = [one.retry_seconds for one in refused if one.retry_seconds is not None]
            retry = max(waits) if len(waits) == len(refused) else None
            return self._timeslice(question, refused[0].reason, retry=retry)
        return self._timeslice(question, judged[0].reason if judged else "Free", first=first)

    def _timeslice(
        self,
        question: TimesliceQuestion,
        reason: str,
        *,
        first: TenantFacts | None = None,
        retry: float | None = None,
    ) -> TimesliceVerdict:
        return TimesliceVerdict(
            next=first.key if first else None,
            reason=reason,
            terms={
                tenant.key: HolderTerms(
                    slice_seconds=self._slice(tenant),
                    min_runtime_seconds=self._min_runtime(tenant),
                )
                for tenant in (*question.holders, *question.waiting)
            },
            retry_seconds=retry,
            revision=self.in_force,
        )

    def _min_runtime(self, tenant: TenantFacts) -> float:
        wish = tenant.min_runtime_seconds
        return self.min_runtime_seconds if wish is None else wish

    def _slice(self, tenant: TenantFacts) -> float:
        return max(self.slice_seconds, self._min_runtime(tenant))

    def _idle_left(self, holder: TenantFacts) -> float:
        if holder.idle_seconds is None:
            return float("inf")
        wish = holder.idle_after_seconds
        return (self.idle_after_seconds if wish is None else wish) - holder.idle_seconds

    def _collation_left(self, question: PreemptionQuestion) -> float:
        if question.incoming.priority != question.holder.priority:
            return float("inf")
        return self.collation_max_wait_seconds - question.incoming.waiting_seconds


def fair_order(waiting: Iterable[TenantFacts]) -> list[TenantFacts]:
    """Those without a turn first, then by priority, then by waiting; nobody wanted parked."""
    return sorted(
        (tenant for tenant in waiting if tenant.desired is not Desired.PARKED),
        key=lambda one: (
            one.ran_since_others_wait,
            -one.priority,
            -one.waiting_seconds,
            str(one.key),
        ),
    )


def _contend(one: TenantFacts, other: TenantFacts) -> bool:
    return not one.gpus or not other.gpus or not set(one.gpus).isdisjoint(other.gpus)


def _order(holder: TenantFacts) -> float:
    reload_ = 1.0 if holder.reload_seconds is None else max(holder.reload_seconds, 0.001)
    expected = max(0.0, holder.idle_seconds or 0.0, holder.asked_every_seconds or 0.0)
    return holder.priority + 0.99 * (reload_ / (reload_ + expected))


def _kept(question: RetentionQuestion, keep: int | None) -> dict[str, str]:
    """In the order of `_reason` in retention.rego."""
    counted = [one for one in question.checkpoints if one.ready and not one.gold]
    newest = sorted(counted, key=lambda one: (one.age_seconds, one.name))[:keep]
    reasons = {}
    for one in question.checkpoints:
        found = (
            ("Gold", one.gold and not one.superseded),
            ("NotReady", not one.ready),
            ("Claimed", one.claimed),
            ("NoPolicy", keep is None and not (one.gold and one.superseded)),
            ("Newest", one in newest),
        )
        reason = next((why for why, holds in found if holds), None)
        if reason is not None:
            reasons[one.name] = reason
    return reasons


def _every(one: TenantFacts, parked: ParkedFacts) -> float:
    """Seconds until it is likely to be asked for."""
    if parked.place is not None:
        return 1.0 + parked.place
    if one.asked_every_seconds is None:
        return 60.0 + parked.seconds
    return max(1.0, parked.seconds, one.asked_every_seconds)
