"""Checkpoints: what placement and claims see of them, and what a wake compares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kybernate.model.ids import NodeName, PodUid
from kybernate.model.tier import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The one pod that wakes from a checkpoint. `pod` is its name, empty in old objects."""

    pod_uid: PodUid
    node: NodeName
    pod: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A sealed `GpuCheckpoint`. `copies` maps a node to the hottest tier it holds there.

    `sealed_at` is seconds since the epoch; `labels` are those its pod had. `written` bytes of it
    were written where it was sealed, `added` of them were new there and stayed; 0: nobody said.
    """

    namespace: str
    name: str
    size: int
    ready: bool
    gold: bool = False
    workload: str = ""
    copies: Mapping[NodeName, Tier] = field(default_factory=dict)
    in_object_storage: bool = False
    claim: Claim | None = None
    sealed_at: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    signature: str = ""
    written: int = 0
    added: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """How long a workload stood still to be sealed, in seconds by phase: out of VRAM, sealed, in
    again. Waiting for a turn meanwhile does not count."""

    phases: tuple[tuple[str, float], ...]

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(seconds for _, seconds in self.phases)


def key_of(named: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of what a pod of `namespace` names: `NAME`, or `NAMESPACE/NAME` for a gold
    image of another."""
    space, _, name = named.rpartition("/")
    return space or namespace, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a checkpoint was made in, and what it needs where it wakes.

    `kernel` is its release, `cpu` the processor's features, `boot` the machine's boot id. `image`
    is the container image's digest, `product` and `driver` are the GPU's. What is not known is
    empty, and compared like everything else.
    """

    kernel: str
    architecture: str
    boot: str
    image: str
    command: tuple[str, ...]
    mechanism: str
    cpu: frozenset[str] = frozenset()
    product: str = ""
    driver: str = ""


class Flaw(StrEnum):
    """Why a checkpoint cannot be used. The value is the constant text people read."""

    ABSENT = "there is no such checkpoint here"
    BAD_NAME = "a name in it is not allowed"
    MALFORMED = "its manifest cannot be read"
    VERSION = "it is of a format this version does not read"
    UNSIGNED = "it is not signed"
    FOREIGN_SIGNATURE = "it is signed by a key that is not trusted"
    FORGED = "its manifest is not what was signed"
    MISPLACED = "it stands under a name that is not its own"
    NOT_PUBLISHED = "it is not the one that was published under its name"
    TOO_LARGE = "it is larger than is allowed"
    FILE_MISSING = "a file is missing"
    FILE_EXTRA = "there is a file that does not belong to it"
    FILE_SIZE = "a file has not the size it had when it was sealed"
    FILE_ALTERED = "a file is not what was sealed"
    LINK = "there is a symbolic link in it"
    SPECIAL_FILE = "there is a device, socket or pipe in it"
    FOREIGN_DOMAIN = "its contents are of a sharing domain that its namespace may not use"
    KEY_ABSENT = "the key of its contents is not here"
    PACK_MISSING = "a pack of its contents is missing"
    PACK_ALTERED = "a pack of its contents is not what was sealed"
    OTHER_KERNEL = "it was made under another kernel"
    OTHER_ARCHITECTURE = "it was made on another processor architecture"
    OTHER_CPU = "it was made on a processor with features that are missing here"
    OTHER_BOOT = "it cannot outlive the boot of the machine it was made in"
    OTHER_IMAGE = "it was made from another container image"
    OTHER_COMMAND = "it was made from another command"
    OTHER_MECHANISM = "its GPU contents were moved out by another mechanism"
    OTHER_GPU = "it was made on another kind of GPU"
    OTHER_DRIVER = "it was made under another GPU driver"
