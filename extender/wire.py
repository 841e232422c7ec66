"""
The extender/v1 JSON of kube-scheduler to values, and answers back to JSON.

Called by: `app.py`. Rule: pure. Rule: the Go types have no JSON tags, so names are PascalCase; Pod
and Node inside are ordinary camelCase. Rule: the scheduler reads only answers of status 200, so a
body that cannot be read is answered with `Error` where the answer's type has that field.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from kybernate.api.errors import Fault, Faults, Malformed
from kybernate.model.ids import NodeName, PodUid

Obj = Mapping[str, Any]

# What is read of a pod beside its containers. Go never writes anything else; somebody else might.
_READ: tuple[tuple[str, str, type, str], ...] = (
    ("metadata", "annotations", dict, "an object"),
    ("metadata", "name", str, "a text"),
    ("metadata", "namespace", str, "a text"),
    ("metadata", "uid", str, "a text"),
    ("spec", "nodeName", str, "a text"),
    ("spec", "priority", int, "a whole number"),
    ("spec", "priorityClassName", str, "a text"),
    ("status", "nominatedNodeName", str, "a text"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Args:
    """A filter or prioritize call. `nodes` holds whole Nodes where nodeCacheCapable is off."""

    pod: Obj
    names: tuple[NodeName, ...]
    nodes: tuple[Obj, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """Whom the scheduler would evict from a node."""

    pods: tuple[PodUid, ...]
    budget_violations: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionArgs:
    """A preempt call."""

    pod: Obj
    victims: Mapping[NodeName, Victims] = field(default_factory=dict)


def read_args(body: bytes) -> Args:
    """ExtenderArgs. Raises Malformed with JSON paths."""
    args = _object(body)
    faults = Faults()
    pod = _pod(args, faults)
    names, nodes = args.get("NodeNames"), args.get("Nodes")
    if names is None and nodes is None:
        faults.add("$.NodeNames", None, "a list of names (or $.Nodes, a NodeList)")
    whole = _nodes(nodes, faults) if names is None and nodes is not None else None
    read = _names(names or [], faults) if whole is None else _names_of(whole, faults)
    faults.check()
    return Args(pod=pod, names=read, nodes=whole)


def read_preemption(body: bytes) -> PreemptionArgs:
    """ExtenderPreemptionArgs, of either form. Raises Malformed with JSON paths."""
    args = _object(body)
    faults = Faults()
    pod = _pod(args, faults)
    victims: dict[NodeName, Victims] = {}
    for form in ("NodeNameToMetaVictims", "NodeNameToVictims"):
        given = args.get(form)
        if isinstance(given, dict):
            for node, value in given.items():
                victims[NodeName(node)] = _victims(value, f"$.{form}.{node}", faults)
        elif given is not None:
            faults.add(f"$.{form}", given, "an object")
    faults.check()
    return PreemptionArgs(pod=pod, victims=victims)


def write_filtered(
    args: Args, passed: Sequence[NodeName], failed: Mapping[NodeName, tuple[str, bool]]
) -> bytes:
    """ExtenderFilterResult. `failed`: a constant reason, and whether eviction cannot cure it."""
    answer: dict[str, Any] = {
        "Nodes": None,
        "NodeNames": passed,
        "FailedNodes": {n: text for n, (text, unresolvable) in failed.items() if not unresolvable},
        "FailedAndUnresolvableNodes": {
            n: text for n, (text, unresolvable) in failed.items() if unresolvable
        },
        "Error": "",
    }
    if args.nodes is not None:
        kept = set(passed)
        items = [node for node in args.nodes if node["metadata"]["name"] in kept]
        answer |= {"Nodes": {"items": items}, "NodeNames": None}
    return orjson.dumps(answer)


def write_filter_error(problem: str) -> bytes:
    """ExtenderFilterResult that makes the scheduler report an error of this attempt."""
    return orjson.dumps(
        {
            "Nodes": None,
            "NodeNames": None,
            "FailedNodes": {},
            "FailedAndUnresolvableNodes": {},
            "Error": problem,
        }
    )


def write_scores(names: Iterable[NodeName], scores: Mapping[NodeName, int]) -> bytes:
    """HostPriorityList: a bare list; whole numbers only, a float would lose all of them."""
    return orjson.dumps([{"Host": name, "Score": scores.get(name, 0)} for name in names])


def write_victims(victims: Mapping[NodeName, Victims]) -> bytes:
    """ExtenderPreemptionResult: always in the Meta form, and without a field for errors."""
    meta = {
        node: {
            "Pods": [{"UID": uid} for uid in found.pods],
            "NumPDBViolations": found.budget_violations,
        }
        for node, found in victims.items()
    }
    return orjson.dumps({"NodeNameToMetaVictims": meta})


def _object(body: bytes) -> dict[str, Any]:
    try:
        args = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        raise Malformed([Fault("$", body[:80], f"JSON ({problem})")]) from None
    if not isinstance(args, dict):
        raise Malformed([Fault("$", args, "an object")])
    return args


def _pod(args: Obj, faults: Faults) -> Obj:
    pod = args.get("Pod")
    if not isinstance(pod, dict):
        faults.add("$.Pod", pod, "a Pod")
        return {}
    for part in ("metadata", "spec", "status"):
        if not isinstance(pod.get(part, {} if part == "status" else None), dict):
            faults.add(f"$.Pod.{part}", pod.get(part), "an object")
    _members(pod, faults)
    spec = pod.get("spec")
    if isinstance(spec, dict):
        for part in ("containers", "initContainers"):
            _containers(spec.get(part) or [], f"$.Pod.spec.{part}", faults)
    return pod


def _members(pod: Obj, faults: Faults) -> None:
    for part, name, kind, expected in _READ:
        of = pod.get(part)
        if not isinstance(of, dict) or name not in of:
            continue
        given = of[name]
        if type(given) is not kind and (given is not None or kind is str):
            faults.add(f"$.Pod.{part}.{name}", given, expected)


def _containers(given: object, path: str, faults: Faults) -> None:
    if not isinstance(given, list):
        faults.add(path, given, "a list")
        return
    for at, container in enumerate(given):
        if not _is_container(container):
            faults.add(f"{path}[{at}]", container, "a container")


def _is_container(given: object) -> bool:
    resources = (given.get("resources") or {}) if isinstance(given, dict) else None
    return isinstance(resources, dict) and all(
        isinstance(resources.get(part) or {}, dict) for part in ("limits", "requests")
    )


def _names(given: object, faults: Faults) -> tuple[NodeName, ...]:
    if not isinstance(given, list):
        faults.add("$.NodeNames", given, "a list of names")
        return ()
    if set(map(type, given)) <= {str}:  # 5,000 names: no loop in Python
        return tuple(given)
    for at, name in enumerate(given):
        if not isinstance(name, str):
            faults.add(f"$.NodeNames[{at}]", name, "a name")
    return ()


def _nodes(given: object, faults: Faults) -> tuple[Obj, ...]:
    items = given.get("items") if isinstance(given, dict) else None
    if not isinstance(items, list):
        faults.add("$.Nodes.items", items, "a list of Nodes")
        return ()
    return tuple(items)


def _names_of(nodes: tuple[Obj, ...], faults: Faults) -> tuple[NodeName, ...]:
    names = []
    for at, node in enumerate(nodes):
        metadata = node.get("metadata") if isinstance(node, dict) else None
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if isinstance(name, str):
            names.append(NodeName(name))
        else:
            faults.add(f"$.Nodes.items[{at}].metadata.name", name, "a name")
    return tuple(names)


def _victims(value: object, path: str, faults: Faults) -> Victims:
    if not isinstance(value, dict):
        faults.add(path, value, "an object")
        return Victims(pods=())
    violations = value.get("NumPDBViolations", 0)
    if type(violations) is not int:
        faults.add(f"{path}.NumPDBViolations", violations, "a whole number")
        violations = 0
    pods = value.get("Pods") or []
    if not isinstance(pods, list):
        faults.add(f"{path}.Pods", pods, "a list")
        pods = []
    uids = [_uid(pod, f"{path}.Pods[{at}]", faults) for at, pod in enumerate(pods)]
    return Victims(pods=tuple(uids), budget_violations=violations)


def _uid(pod: object, path: str, faults: Faults) -> PodUid:
    """Of a MetaPod ({"UID": ...}) or of a whole Pod."""
    found: object = None
    if isinstance(pod, dict):
        metadata = pod.get("metadata")
        found = pod.get("UID") or (metadata.get("uid") if isinstance(metadata, dict) else None)
    if not isinstance(found, str):
        faults.add(f"{path}.UID", found, "a uid")
        return PodUid("")
    return PodUid(found)
