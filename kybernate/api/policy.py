"""
Questions to policy as the `input` documents of Rego, and Rego's results as verdicts. Pure.

Called by `clients/opa.py`, and by the controller for the questions a bundle must be able to answer.
Rule 1: the JSON is described by `policies/schemas/<package>.json`; the two change together.
Rule 2: a result that is not exactly a verdict raises Malformed with every fault. Extra members are
allowed, so that a policy can say more than this version reads.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kybernate.api import annotations
from kybernate.api.errors import Faults
from kybernate.model.callers import Callers, Network
from kybernate.model.engines import Engines
from kybernate.model.ids import Revision, WorkloadKey
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
from kybernate.model.storelimits import StoreLimits
from kybernate.model.tier import Tier
from kybernate.model.workload import WorkloadClass

Document = dict[str, Any]

_REASON = "a word for the reason"
_SECONDS = "a number of seconds, not negative"
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,127}", re.ASCII)  # as Prometheus has it


def write_admission(question: AdmissionQuestion) -> Document:
    """The input of `kyb.admission`."""
    return {
        "pod": question.pod,
        "namespace": question.namespace,
        "namespace_labels": dict(question.namespace_labels),
        "resource": question.resource,
        "vram": question.vram,
        "min_runtime_seconds": question.min_runtime_seconds,
        "seats_used": None if question.seats_used is None else dict(question.seats_used),
    }


def read_admission(result: object, revision: Revision) -> AdmissionVerdict:
    """A verdict of `kyb.admission`. Raises Malformed."""
    faults = Faults()
    verdict = _mapping(result, "verdict", faults)
    denials = _sequence(verdict.get("deny"), "deny", faults)
    read = AdmissionVerdict(
        deny=tuple(sorted(_denial(one, f"deny[{at}]", faults) for at, one in enumerate(denials))),
        defaults=_texts(verdict.get("defaults"), "defaults", faults),
        revision=revision,
    )
    faults.check()
    return read


def write_placement(question: PlacementQuestion) -> Document:
    """The input of `kyb.placement`.

    The pod's name stays out: no rule may turn on it, so that replicas share a cached answer.
    """
    return {
        "namespace": question.key.namespace,
        "class": str(question.workload_class),
        "priority": question.priority,
        "vram": question.vram,
        "resource": question.resource,
        "classes": [
            {
                "id": node.id,
                "product": node.product,
                "labels": dict(node.labels),
                "healthy": node.healthy,
            }
            for node in question.classes
        ],
    }


def read_placement(result: object, revision: Revision) -> PlacementVerdict:
    """A verdict of `kyb.placement`. Raises Malformed."""
    faults = Faults()
    verdict = _mapping(result, "verdict", faults)
    penalties = _mapping(verdict.get("penalty_seconds"), "penalty_seconds", faults)
    read = PlacementVerdict(
        deny=_texts(verdict.get("deny"), "deny", faults),
        penalty_seconds={
            str(node): _seconds(seconds, f"penalty_seconds.{node}", faults)
            for node, seconds in penalties.items()
        },
        revision=revision,
    )
    faults.check()
    return read


def write_preemption(question: PreemptionQuestion) -> Document:
    """The input of `kyb.preemption`."""
    return {
        "incoming": _tenant(question.incoming),
        "holder": _tenant(question.holder),
        "group": _group(question),
        "calendar": _calendar(question),
        "slice_seconds": question.slice_seconds,
        "switches_last_minute": question.switches_last_minute,
    }


def read_preemption(result: object, revision: Revision) -> PreemptionVerdict:
    """A verdict of `kyb.preemption`. Raises Malformed."""
    faults = Faults()
    verdict = _mapping(result, "verdict", faults)
    read = PreemptionVerdict(
        allow=_flag(verdict.get("allow"), "allow", faults),
        reason=_text(verdict.get("reason"), "reason", _REASON, faults),
        order=_number(verdict.get("order", 0), "order", faults),
        retry_seconds=_maybe_seconds(verdict.get("retry_seconds"), "retry_seconds", faults),
        revision=revision,
    )
    faults.check()
    return read


def write_timeslice(question: TimesliceQuestion) -> Document:
    """The input of `kyb.timeslice`."""
    return {
        "group": _group(question),
        "holders": [_tenant(tenant) for tenant in question.holders],
        "waiting": [_tenant(tenant) for tenant in question.waiting],
        "calendar": _calendar(question),
    }


def read_timeslice(
    result: object, question: TimesliceQuestion, revision: Revision
) -> TimesliceVerdict:
    """A verdict of `kyb.timeslice` on `question`. Raises Malformed.

    `next` must be one that waits, and `terms` must name every tenant: a holder without terms could
    neither be protected nor moved.
    """
    faults = Faults()
    verdict = _mapping(result, "verdict", faults)
    read = TimesliceVerdict(
        next=_next(verdict.get("next"), question, faults),
        reason=_text(verdict.get("reason"), "reason", _REASON, faults),
        terms=_terms(verdict.get("terms"), question, faults),
        retry_seconds=_maybe_seconds(verdict.get("retry_seconds"), "retry_seconds", faults),
        revision=revision,
    )
    faults.check()
    return read


def write_retention(question: RetentionQuestion) -> Document:
    """The input of `kyb.retention`."""
    return {
        "namespace": question.namespace,
        "workload": question.workload,
        "keep": question.keep,
        "checkpoints": [
            {
                "name": one.name,
                "age_seconds": one.age_seconds,
                "size": one.size,
                "gold": one.gold,
                "superseded": one.superseded,
                "ready": one.ready,
                "claimed": one.claimed,
            }
            for one in question.checkpoints
        ],
    }


def read_retention(result: object, revision: Revision) -> RetentionVerdict:
    """A verdict of `kyb.retention`. Raises Malformed."""
    faults = Faults()
    verdict = _mapping(result, "verdict", faults)
    quota = verdict.get("quota_bytes")
    read = RetentionVerdict(
        keep=_texts(verdict.get("keep"), "keep", faults),
        grace_seconds=_seconds(verdict.get("grace_seconds"), "grace_seconds", faults),
        quota_bytes=None if quota is None else int(_seconds(quota, "quota_bytes", faults)),
        revision=revision,
    )
    faults.check()
    return read


def write_sharing(question: SharingQuestion) -> Document:
    """The input of `kyb.sharing`."""
    image = {"namespace": question.namespace, "name": question.name}
    return {"namespace": question.by, "image": image}


def read_sharing(result: object, revision: Revision) -> SharingVerdict:
    """A verdict of `kyb.sharing`. Raises Malformed."""
    faults = Faults()
    verdict = _mapping(result, "verdict", faults)
    read = SharingVerdict(
        allow=_flag(verdict.get("allow"), "allow", faults),
        reason=_text(verdict.get("reason"), "reason", _REASON, faults),
        revision=revision,
    )
    faults.check()
    return read


def write_tiering(question: TieringQuestion) -> Document:
    """The input of `kyb.tiering`."""
    return {
        "workload": _tenant(question.workload),
        "waiting": question.waiting,
        "ram_free": question.ram_free,
        "calendar": _calendar(question),
        **({"parked": _parked(question.parked)} if question.parked else {}),
    }


def _parked(parked: ParkedFacts) -> Document:
    return {
        "tier": parked.tier.value,
        "seconds": round(parked.seconds, 3),
        "place": parked.place,
        "fetch_seconds": round(parked.fetch_seconds, 3),
        "ram_capacity": parked.ram_capacity,
        "ram_short": parked.ram_short,
        "ram_to_come": parked.ram_to_come,
        "nvme_free": parked.nvme_free,
        "nvme_capacity": parked.nvme_capacity,
        "nvme_short": parked.nvme_short,
        "object_free": parked.object_free,
    }


def read_tiering(result: object, revision: Revision) -> TieringVerdict:
    """A verdict of `kyb.tiering`. Raises Malformed."""
    faults = Faults()
    verdict = _mapping(result, "verdict", faults)
    read = TieringVerdict(
        tier=_tier(verdict.get("tier"), faults),
        reason=_text(verdict.get("reason"), "reason", _REASON, faults),
        after_seconds=_maybe_seconds(verdict.get("after_seconds"), "after_seconds", faults),
        value=_seconds(verdict.get("value", 0.0), "value", faults),
        revision=revision,
    )
    faults.check()
    return read


def _tier(value: object, faults: Faults) -> Tier:
    if value in tuple(Tier):
        return Tier(str(value))
    faults.add("tier", value, "vram, ram, nvme or object")
    return Tier.VRAM


def read_ignored_callers(result: object, revision: Revision) -> Callers:  # noqa: ARG001
    """`callers` of the data `ignored.json`; without it nobody is. Raises Malformed."""
    faults = Faults()
    callers = _mapping(_mapping(result, "ignored", faults).get("callers", {}), "callers", faults)
    networks = [
        _network(one, f"callers.addresses[{at}]", faults)
        for at, one in enumerate(_sequence(callers.get("addresses", ()), "addresses", faults))
    ]
    ports = _sequence(callers.get("ports", ()), "callers.ports", faults)
    for at, port in enumerate(ports):
        if not isinstance(port, int) or not 0 < port < 65536:
            faults.add(f"callers.ports[{at}]", port, "a port, 1 to 65535")
    faults.check()
    return Callers(
        networks=tuple(one for one in networks if one is not None), ports=frozenset(ports)
    )


def read_engines(result: object, revision: Revision) -> Engines:  # noqa: ARG001
    """The data `metrics.json`. Raises Malformed."""
    faults = Faults()
    told = _mapping(result, "metrics", faults)
    requests, steps = _metrics(told, "requests", faults), _metrics(told, "steps", faults)
    ats = _mapping(told.get("at", {}), "at", faults)
    at = {
        kind: faults.read(f"at.{kind}", ats[kind], annotations.parse_endpoint, None)
        for kind in WorkloadClass
        if kind in ats
    }
    faults.check()
    known = {kind: one for kind, one in at.items() if one is not None}
    return Engines(requests=requests, steps=steps, at=known)


def read_store_limits(result: object, revision: Revision) -> StoreLimits:  # noqa: ARG001
    """`store_bytes` of the data `quotas.json`, of all and of each namespace. Raises Malformed."""
    faults = Faults()
    told = _mapping(result, "quotas", faults)
    named = _mapping(told.get("namespaces", {}), "namespaces", faults)
    own = {name: _mapping(one, f"namespaces.{name}", faults) for name, one in named.items()}
    limits = StoreLimits(
        whole=_bytes(told, "", faults),
        default=_bytes(_mapping(told.get("default", {}), "default", faults), "default.", faults),
        namespaces={
            name: _bytes(one, f"namespaces.{name}.", faults)
            for name, one in own.items()
            if "store_bytes" in one
        },
    )
    faults.check()
    return limits


def _bytes(told: Mapping[str, Any], path: str, faults: Faults) -> int | None:
    value = told.get("store_bytes")
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    faults.add(f"{path}store_bytes", value, "bytes from 0 on, or null")
    return None


def _metrics(told: Mapping[str, Any], part: str, faults: Faults) -> frozenset[str]:
    listed = _sequence(told.get(part, ()), part, faults)
    for at, name in enumerate(listed):
        if not isinstance(name, str) or _METRIC.fullmatch(name) is None:
            faults.add(f"{part}[{at}]", name, "a metric's name, like vllm:num_requests_running")
    return frozenset(name for name in listed if isinstance(name, str))


def _network(value: object, path: str, faults: Faults) -> Network | None:
    try:
        return ipaddress.ip_network(value, strict=False)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        faults.add(path, value, "an address or a network, like 10.0.0.7 or 10.0.0.0/24")
        return None


def _tenant(tenant: TenantFacts) -> Document:
    return {
        "key": str(tenant.key),
        "class": str(tenant.workload_class),
        "priority": tenant.priority,
        "vram": tenant.vram,
        "state": str(tenant.state),
        "desired": str(tenant.desired),
        "running_seconds": tenant.running_seconds,
        "waiting_seconds": tenant.waiting_seconds,
        "idle_seconds": tenant.idle_seconds,
        "min_runtime_seconds": tenant.min_runtime_seconds,
        "idle_after_seconds": tenant.idle_after_seconds,
        "in_flight": tenant.in_flight,
        "pinned": tenant.pinned,
        "reload_seconds": tenant.reload_seconds,
        "asked_every_seconds": tenant.asked_every_seconds,
        "gpus": list(tenant.gpus),
        "ran_since_others_wait": tenant.ran_since_others_wait,
    }


def _group(question: PreemptionQuestion | TimesliceQuestion) -> Document:
    group = question.group
    return {
        "name": group.name,
        "gpus": list(group.gpus),
        "vram": group.vram,
        "seats": group.seats,
        "waiting": group.waiting,
    }


def _calendar(question: PreemptionQuestion | TieringQuestion | TimesliceQuestion) -> Document:
    now = question.calendar
    return {"weekday": now.weekday, "hour": now.hour, "minute": now.minute}


def _next(value: object, question: TimesliceQuestion, faults: Faults) -> WorkloadKey | None:
    if value is None:
        return None
    waiting = {str(tenant.key): tenant.key for tenant in question.waiting}
    if isinstance(value, str) and value in waiting:
        return waiting[value]
    faults.add("next", value, "null or the key of a workload that waits")
    return None


def _terms(
    value: object, question: TimesliceQuestion, faults: Faults
) -> dict[WorkloadKey, HolderTerms]:
    found = _mapping(value, "terms", faults)
    read = {}
    for tenant in (*question.holders, *question.waiting):
        path = f"terms.{tenant.key}"
        terms = _mapping(found.get(str(tenant.key)), path, faults)
        read[tenant.key] = HolderTerms(
            slice_seconds=_seconds(terms.get("slice_seconds"), f"{path}.slice_seconds", faults),
            min_runtime_seconds=_seconds(
                terms.get("min_runtime_seconds"), f"{path}.min_runtime_seconds", faults
            ),
        )
    return read


def _denial(value: object, path: str, faults: Faults) -> tuple[str, str]:
    denial = _mapping(value, path, faults)
    return (
        _text(denial.get("reason"), f"{path}.reason", _REASON, faults),
        _text(denial.get("message"), f"{path}.message", "a sentence for people", faults),
    )


def _mapping(value: object, path: str, faults: Faults) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    faults.add(path, value, "an object")
    return {}


def _sequence(value: object, path: str, faults: Faults) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    faults.add(path, value, "a list")
    return ()


def _texts(value: object, path: str, faults: Faults) -> dict[str, str]:
    return {
        str(name): _text(text, f"{path}.{name}", "a string", faults)
        for name, text in _mapping(value, path, faults).items()
    }


def _text(value: object, path: str, expected: str, faults: Faults) -> str:
    if isinstance(value, str) and value:
        return value
    faults.add(path, value, expected)
    return ""


def _flag(value: object, path: str, faults: Faults) -> bool:
    if isinstance(value, bool):
        return value
    faults.add(path, value, "true or false")
    return False


def _number(value: object, path: str, faults: Faults) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    faults.add(path, value, "a number")
    return 0.0


def _seconds(value: object, path: str, faults: Faults) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    faults.add(path, value, _SECONDS)
    return 0.0


def _maybe_seconds(value: object, path: str, faults: Faults) -> float | None:
    return None if value is None else _seconds(value, path, faults)
