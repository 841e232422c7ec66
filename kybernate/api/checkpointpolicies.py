"""
CheckpointPolicy to what is acted on: which pods it is about, how often these are checkpointed, and
how many checkpoints stay.

Called by: the controller. Rule: a label selector means what it means to Kubernetes; one that cannot
be read is Malformed and selects nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kybernate.api import fields, timestamps
from kybernate.api.duration import parse_seconds
from kybernate.api.fields import Reader

Labels = Mapping[str, str]

_READY = "Ready"
KEEP = 3  # where it does not say; the schema's own default
_OPERATORS: Mapping[str, Callable[[str | None, frozenset[str]], bool]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Labels) -> bool:
        """Of a pod with these labels."""
        return _OPERATORS[self.operator](labels.get(self.key), self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What its status says: how many workloads it selects, and who is not checkpointed now, why."""

    workloads: int
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPolicy:
    """What is acted on. `standing` is what we wrote last, `since` when (seconds since the epoch)
    the condition came; two are equal where they ask for the same."""

    namespace: str
    name: str
    keep: int
    every: float | None = None  # seconds between checkpoints; None: only when asked
    object_after: float | None = None  # seconds after its sealing one goes into object storage
    gold: str = ""  # what gold images of these pods are called first; empty: none are made
    selector: tuple[Requirement, ...] = ()
    uid: str = ""
    generation: int = field(default=0, compare=False)
    standing: Standing | None = field(default=None, compare=False)
    since: float = field(default=0.0, compare=False)

    def selects(self, labels: Labels) -> bool:
        """Whether it is about pods with these labels; an empty selector is about all."""
        return all(requirement.holds(labels) for requirement in self.selector)

    def is_about(self, namespace: str, labels: Labels) -> bool:
        """Whether it speaks of a pod of this namespace with these labels."""
        return self.namespace == namespace and self.selects(labels)


def read_policy(obj: Mapping[str, Any]) -> CheckpointPolicy:
    """Raises Malformed with every fault and its path."""
    metadata = obj["metadata"]
    standing, since = _standing(obj.get("status") or {})

    def build(reader: Reader) -> CheckpointPolicy:
        return CheckpointPolicy(
            namespace=metadata.get("namespace", "default"),
            name=metadata["name"],
            keep=max(1, reader.integer("keep", KEEP)),
            every=_seconds(reader, "every"),
            object_after=_seconds(reader.below("tiers"), "objectAfter"),
            gold=reader.text("gold", ""),
            selector=_selector(reader.below("selector")),
            uid=metadata.get("uid", ""),
            generation=int(metadata.get("generation", 0)),
            standing=standing,
            since=since,
        )

    return fields.read(obj.get("spec") or {}, "spec", build)


def write_status(policy: CheckpointPolicy, standing: Standing, now: float) -> dict[str, Any]:
    """For a merge patch. The condition's time stays where only the words change."""
    ready = {
        "type": _READY,
        "status": "True",
        "reason": "Applies",
        "message": standing.message[:32768],
        "lastTransitionTime": timestamps.rfc3339(policy.since or now),
        "observedGeneration": policy.generation,
    }
    return {
        "workloads": standing.workloads,
        "observedGeneration": policy.generation,
        "conditions": [ready],
    }


def _standing(status: Mapping[str, Any]) -> tuple[Standing | None, float]:
    for condition in status.get("conditions") or ():
        if condition["type"] == _READY:
            workloads = int(status.get("workloads", 0))
            said = Standing(workloads=workloads, message=condition.get("message", ""))
            return said, timestamps.parse_rfc3339(condition["lastTransitionTime"])
    return None, 0.0


def _seconds(reader: Reader, name: str) -> float | None:
    if reader.value.get(name) is None:
        return None
    return reader.parsed(name, parse_seconds, 0.0)


def _selector(reader: Reader) -> tuple[Requirement, ...]:
    wanted = reader.below("matchLabels")
    exact = [Requirement(key, "In", frozenset({wanted.text(key)})) for key in wanted.value]
    return (*exact, *(_requirement(one) for one in reader.each("matchExpressions")))


def _requirement(reader: Reader) -> Requirement:
    operator = reader.text("operator")
    if operator not in _OPERATORS:
        reader.faults.add(f"{reader.path}.operator", operator, ", ".join(_OPERATORS))
    values = frozenset(str(value) for value in reader.sequence("values"))
    return Requirement(reader.text("key"), operator, values)
