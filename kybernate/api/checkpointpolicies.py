"""
CheckpointPolicy to what is acted on: which pods it is about, and how many checkpoints stay.

Called by: the controller. Rule: a label selector means what it means to Kubernetes; one that cannot
be read is Malformed and selects nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kybernate.api import fields
from kybernate.api.duration import parse_seconds
from kybernate.api.fields import Reader

Labels = Mapping[str, str]

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
class CheckpointPolicy:
    """What is acted on."""

    namespace: str
    name: str
    keep: int
    object_after: float | None = None  # seconds after its sealing one goes into object storage
    selector: tuple[Requirement, ...] = ()

    def selects(self, labels: Labels) -> bool:
        """Whether it is about pods with these labels; an empty selector is about all."""
        return all(requirement.holds(labels) for requirement in self.selector)


def read_policy(obj: Mapping[str, Any]) -> CheckpointPolicy:
    """Raises Malformed with every fault and its path."""
    metadata = obj["metadata"]

    def build(reader: Reader) -> CheckpointPolicy:
        return CheckpointPolicy(
            namespace=metadata.get("namespace", "default"),
            name=metadata["name"],
            keep=max(1, reader.integer("keep", KEEP)),
            object_after=_seconds(reader.below("tiers"), "objectAfter"),
            selector=_selector(reader.below("selector")),
        )

    return fields.read(obj.get("spec") or {}, "spec", build)


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
