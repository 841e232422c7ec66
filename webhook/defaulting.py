"""What a seat pod lacks, as additions to it. Pure; called by `admission`.

Rule 1: what is present stays, however wrong; `validation` judges the result.
Rule 2: the same pod and terms give the same additions, and a completed pod gives none (the API
server may call twice). So no time and no random value ever enters a patch.
Probes, hooks and what preloading needs are modules of their own, which `complete` calls.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kybernate.api import annotations, names
from kybernate.api.errors import Fault, Malformed
from webhook import hooks, preload, probes, seats
from webhook.wire import Addition

DEFAULT_SCHEDULER = "default-scheduler"  # what the API server writes where a pod names none

VRAM_WARNING = (
    f"{names.VRAM} is not set, so the pod is taken to need the whole group's VRAM; "
    f'a pod that needs less says so, like {names.VRAM}: "40Gi"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a pod is completed with.

    `defaults` are annotations from policy. `candidates` are checkpoints this very workload may wake
    from, best first. `scheduler` is empty where the cluster has no scheduler of ours.
    """

    defaults: Mapping[str, str] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()
    scheduler: str = ""


def usable(defaults: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Policy's defaults that may be given to a pod, and a sentence about each that may not.

    A slip in policy data must not turn into a refusal of somebody's pod, nor into an annotation
    that only the agent may write.
    """
    good: dict[str, str] = {}
    left_out: list[str] = []
    for name, value in sorted(defaults.items()):
        try:
            if name not in names.INPUT_ANNOTATIONS:
                raise Malformed([Fault(name, value, "an annotation that pods may set")])
            annotations.read_wishes({name: value})
            good[name] = value
        except Malformed as problem:
            left_out.append(f"policy's default is left out: {problem}")
    return good, tuple(left_out)


def complete(pod: Mapping[str, Any], terms: Terms) -> tuple[Addition, ...]:
    """The additions that make the pod complete; none where it is, or where it wants no seat."""
    if not seats.claims(pod):
        return ()
    return (
        *_runtime_class(pod),
        *_scheduler(pod, terms.scheduler),
        *_limits(pod),
        *_annotate(pod, terms),
        *probes.additions(pod),
        *hooks.additions(pod, {**terms.defaults, **_annotations(pod)}),
        *preload.additions(pod, {**terms.defaults, **_annotations(pod)}),
    )


def warnings(pod: Mapping[str, Any], terms: Terms) -> tuple[str, ...]:
    """What the pod's author should know, judged after completion."""
    known = {**terms.defaults, **_annotations(pod)}
    return (*(() if names.VRAM in known else (VRAM_WARNING,)), *preload.warnings(pod, known))


def _runtime_class(pod: Mapping[str, Any]) -> Iterator[Addition]:
    if not pod["spec"].get("runtimeClassName"):
        yield Addition(("spec", "runtimeClassName"), names.RUNTIME_CLASS)


def _scheduler(pod: Mapping[str, Any], ours: str) -> Iterator[Addition]:
    present = pod["spec"].get("schedulerName") or DEFAULT_SCHEDULER
    if ours and present == DEFAULT_SCHEDULER != ours:
        yield Addition(("spec", "schedulerName"), ours)


def _limits(pod: Mapping[str, Any]) -> Iterator[Addition]:
    """Extended resources need limits; a bare pod may have given its seat in requests alone."""
    made: set[int] = set()
    for claim in seats.claims(pod):
        if claim.among is not seats.ContainerList.APP or claim.limit is not None:
            continue
        limits = ("spec", claim.among, str(claim.index), "resources", "limits")
        container = pod["spec"][claim.among][claim.index]
        if not container["resources"].get("limits") and claim.index not in made:
            made.add(claim.index)
            yield Addition(limits, {})
        yield Addition((*limits, claim.resource), claim.request)


def _annotate(pod: Mapping[str, Any], terms: Terms) -> Iterator[Addition]:
    present = _annotations(pod)
    wanted = {**terms.defaults, **_restore_from(terms)}
    missing = {name: value for name, value in wanted.items() if name not in present}
    if names.PREFER_GROUP_PLAIN in present:
        missing.pop(names.PREFER_GROUP, None)
    if missing and not isinstance((pod.get("metadata") or {}).get("annotations"), dict):
        if not isinstance(pod.get("metadata"), dict):
            yield Addition(("metadata",), {})
        yield Addition(("metadata", "annotations"), {})
    for name in sorted(missing):
        yield Addition(("metadata", "annotations", name), missing[name])


def _restore_from(terms: Terms) -> dict[str, str]:
    """The workload's own checkpoints first; a gold image that policy names comes after them."""
    gold = terms.defaults.get(names.RESTORE_FROM, "").split(",")
    found = dict.fromkeys((*terms.candidates, *(name.strip() for name in gold)))
    listed = ",".join([name for name in found if name][: annotations.MOST_CANDIDATES])
    return {names.RESTORE_FROM: listed} if listed else {}


def _annotations(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = pod.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    return annotations if isinstance(annotations, dict) else {}
