"""
What whoever seals knows of a workload, as manifests of both formats hold it. Pure.

Called by: the manifests' codecs. Rule: the names in the JSON are the names of the fields.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

import orjson

from kybernate.api.fields import Reader
from kybernate.model.checkpoint import Checkpoint, Fingerprint
from kybernate.model.ids import NodeName, PodUid

WOKEN_FROM = "woken_from"  # in `Facts.more`: the checkpoint that its pod woke from, as it named it
# Labels that controllers write into each pod they make: whose it is, and which.
_OF_ONE_POD = frozenset(
    {
        "pod-template-hash", "controller-revision-hash", "pod-template-generation",
        "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
        "controller-uid", "job-name", "kyb.ai/restore-request",
    }
)  # fmt: skip
_OF_ONE_JOB = "batch.kubernetes.io/"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPart:
    """A piece of the GPU's contents. `card` is its place in the group (0 is the first), `size` the
    card's bytes, `digest` the mechanism's own of what was in VRAM, `path` the file it is in; or, of
    one that is `layered`, its list's, and `digest` that of its pieces (`layers`)."""

    name: str
    card: int
    size: int
    digest: str
    path: str
    layered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What whoever seals knows of the workload. `sealed_at` is seconds since the epoch.

    `workload` is its identity (`kybernate/api/identity.py`), or its pod's name where it has none.
    `boot_bound`: it cannot outlive the machine's boot. `labels` are the pod's. `more` is for
    whoever wakes it: short texts by name. `written` is how many bytes of it were written to the
    disk it was sealed to, `added` how many of them stayed there and were new; 0 where nobody said.
    """

    workload: str
    pod: str
    pod_uid: PodUid
    container: str
    node: NodeName
    sealed_at: float
    made_in: Fingerprint
    boot_bound: bool = False
    gold: bool = False
    parts: tuple[GpuPart, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)
    written: int = 0
    added: int = 0

    @property
    def fingerprint(self) -> str:
        """What a wake compares, as a hash: equal for checkpoints that may wake at the same places,
        boots aside."""
        made_in = {**_fingerprint(self.made_in), "boot": ""}
        return "sha256:" + sha256(orjson.dumps(made_in, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def as_gold(self) -> "Facts":
        """Of a gold image, which is nobody's own: without the labels that one pod alone has."""
        labels = {name: value for name, value in self.labels.items() if not _of_one_pod(name)}
        return replace(self, gold=True, labels=labels)

    def checkpoint(self, namespace: str, name: str, size: int, signature: str) -> Checkpoint:
        """As the cluster knows one of these facts; `size` is the bytes of its files."""
        return Checkpoint(
            namespace=namespace,
            name=name,
            size=size,
            ready=True,
            gold=self.gold,
            workload=self.workload,
            sealed_at=self.sealed_at,
            labels=self.labels,
            signature=signature,
            written=self.written,
            added=self.added,
        )


def encode(facts: Facts) -> dict[str, Any]:
    """For the JSON; what came to the format later is there only where it says something."""
    whole = {**asdict(facts), "made_in": _fingerprint(facts.made_in)}
    for part in whole["parts"]:
        _without_nothing(part, "layered")
    return _without_nothing(whole, "written", "added")


def decode(reader: Reader) -> Facts:
    """Faults go to the reader's."""
    made_in = reader.below("made_in")
    return Facts(
        workload=reader.text("workload"),
        pod=reader.text("pod"),
        pod_uid=PodUid(reader.text("pod_uid")),
        container=reader.text("container"),
        node=NodeName(reader.text("node")),
        sealed_at=reader.seconds("sealed_at"),
        made_in=Fingerprint(
            **{
                name: made_in.text(name)
                for name in ("kernel", "architecture", "boot", "image", "mechanism")
            },
            command=tuple(map(str, made_in.sequence("command"))),
            cpu=frozenset(map(str, made_in.sequence("cpu"))),
            product=made_in.text("product"),
            driver=made_in.text("driver"),
        ),
        boot_bound=reader.flag("boot_bound"),
        gold=reader.flag("gold"),
        parts=tuple(_part(part) for part in reader.each("parts")),
        labels=_texts(reader.below("labels")),
        more=_texts(reader.below("more")),
        written=reader.integer("written", 0),
        added=reader.integer("added", 0),
    )


def _without_nothing(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        if not fields[name]:
            del fields[name]
    return fields


def _of_one_pod(label: str) -> bool:
    return label in _OF_ONE_POD or label.startswith(_OF_ONE_JOB)


def _fingerprint(made_in: Fingerprint) -> dict[str, Any]:
    return {**asdict(made_in), "cpu": sorted(made_in.cpu)}


def _part(reader: Reader) -> GpuPart:
    return GpuPart(
        name=reader.text("name"),
        card=reader.integer("card"),
        size=reader.integer("size"),
        digest=reader.text("digest"),
        path=reader.text("path"),
        layered=reader.flag("layered"),
    )


def _texts(reader: Reader) -> dict[str, str]:
    return {name: reader.text(name) for name in reader.value}
