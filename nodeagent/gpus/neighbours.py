"""
Looking, now and then, for others on our GPUs; what is found stands in GpuNode's conditions.

Called by `process`. Facts come from the inventory, the kubelet's folder of device plugins, and the
node's own files, read through the node's first process: in a container they are not ours.
Rule: a file that is not there, or is not what we know, is no fact; nothing here stops the agent.
"""

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson
import yaml

from kybernate.api import names
from kybernate.api.gpunodes import Condition
from kybernate.clients.clock import Clock
from kybernate.clients.events import ObjectRef
from kybernate.clients.gpus import GpuProcess, Inventory, InventoryAway
from kybernate.decisions.grouping import missing
from kybernate.model.gpu import Group
from kybernate.model.ids import NodeName
from kybernate.model.verdict import EventReason
from nodeagent.gpus import coexistence
from nodeagent.gpus.cards import Picture
from nodeagent.gpus.coexistence import Aspect, Facts, Finding, Stranger
from nodeagent.looking import Looking
from nodeagent.truth.books import Deviation
from nodeagent.truth.holders import keepers

# Nobody installs device plugins by the second; a look reads some files.
EVERY_S = 30.0
KUBELET = Path("/var/lib/kubelet")
_BOOK = "device-plugins/kubelet_internal_checkpoint"  # undocumented: JSON since 1.9
_MPS = "nvidia-cuda-mps"  # -control and -server, as far as the kernel keeps names
_RUNTIME = "etc/nvidia-container-runtime/config.toml"
_OPEN = "accept-nvidia-visible-devices-envvar-when-unprivileged"
_CONTAINERD = "etc/containerd/config.toml"
_CDI = ("etc/cdi", "var/run/cdi")
_CDI_KIND = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where is looked."""

    inventory: Inventory
    picture: Callable[[], Picture | None]
    proc: Path = Path("/proc")
    incomplete: Sequence[Group] = ()  # groups of which a card is missing
    deviations: Callable[[], Sequence[Deviation]] = tuple  # what is held beside the books
    driver: Callable[[], str] = str  # the version of one that parks; else empty
    kubelet: Path = KUBELET
    """Its folder, as far as it is shown to us; else the node's first process is asked."""

    @property
    def node(self) -> Path:
        """The node's root folder."""
        return self.proc / "1" / "root"

    @property
    def book(self) -> Path:
        """The kubelet's, of devices."""
        shown = self.kubelet / _BOOK
        return shown if shown.exists() else self.node / str(KUBELET / _BOOK).lstrip("/")


def look(at: Surroundings) -> tuple[Finding, ...] | None:
    """What is found now; None while the cards are not seen."""
    picture = at.picture()
    if picture is None:
        return None
    return coexistence.findings(_facts(at, picture), picture.gpus)


class Events(Protocol):
    """`EventRecorder`, or a fake of it."""

    def record(
        self, regarding: ObjectRef, reason: EventReason, action: str, note: str, *, warning: bool
    ) -> None:
        """In the background."""


def tell(events: Events, node: NodeName, new: Sequence[Finding], over: Sequence[Finding]) -> None:
    """An event on the Node for each."""
    about = ObjectRef(kind="Node", name=node, uid=node)  # as the kubelet refers
    for one in new:
        note = f"{one.reason}: {one.words}"
        events.record(about, EventReason.PROBLEM_FOUND, "Watching", note, warning=True)
    for one in over:
        note = f"{one.reason}: it is over"
        events.record(about, EventReason.PROBLEM_OVER, "Watching", note, warning=False)


class Neighbours:
    """Looks in a thread of its own. `start` and `stop` once."""

    def __init__(
        self,
        at: Surroundings,
        clock: Clock,
        changed: Callable[[Sequence[Finding], Sequence[Finding]], None],
    ) -> None:
        """`changed` is told what was found newly, and what is over."""
        self._at, self._clock, self._changed = at, clock, changed
        self._found: tuple[Finding, ...] | None = None
        self._since: dict[Aspect, float] = {}
        self._looking = Looking("neighbours", self._again, clock, EVERY_S)
        self.start, self.stop = self._looking.start, self._looking.stop

    def conditions(self) -> tuple[Condition, ...]:
        """As of the last look; none before the first."""
        if self._found is None:
            return ()
        return coexistence.conditions(self._found, self._since)

    def look(self) -> bool:
        """Once. Whether the cards were seen."""
        found = look(self._at)
        if found is None:
            return False
        before, first = self._found or (), self._found is None
        for aspect in Aspect:
            if first or _well(aspect, found) != _well(aspect, before):
                self._since[aspect] = self._clock.now()
        self._found = found
        new = [one for one in found if one not in before]
        over = [one for one in before if one not in found]
        if first or new or over:
            self._changed(new, over)
        return True

    def _again(self) -> float:
        return EVERY_S if self.look() else 1.0


def _well(aspect: Aspect, found: Sequence[Finding]) -> bool:
    return all(one.aspect is not aspect for one in found)


def _facts(at: Surroundings, picture: Picture) -> Facts:
    offered, taken = kubelets_book(at.book)
    index = {gpu.uuid: gpu.index for gpu in picture.gpus}
    try:
        setups = {index[u]: one for u, one in at.inventory.setups().items() if u in index}
        ailments = {index[u]: one for u, one in at.inventory.ailments().items() if u in index}
    except InventoryAway:
        setups, ailments = {}, {}
    return Facts(
        missing={group.name: missing(group, picture.gpus) for group in at.incomplete},
        offered=offered,
        taken=taken,
        setups=setups,
        mps=_named(at.proc, _MPS),
        strangers=_strangers(at, picture),
        default_runtime=_default_runtime(at.node / _CONTAINERD),
        open_to_environment=_is_open(at.node / _RUNTIME),
        cdi_devices=cdi_devices(at.node / folder for folder in _CDI),
        ailments=ailments,
        deviations=at.deviations(),
        driver=at.driver(),
    )


def kubelets_book(
    file: Path,
) -> tuple[Mapping[str, Collection[str]], Mapping[str, Collection[str]]]:
    """Device ids and pods' uids by resource, ours left out. Empty where it cannot be read."""
    offered: dict[str, set[str]] = {}
    taken: dict[str, set[str]] = {}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        book = orjson.loads(file.read_bytes())["Data"]
        for resource, ids in (book["RegisteredDevices"] or {}).items():
            offered[resource] = set(ids or ())
        for entry in book["PodDeviceEntries"] or ():
            taken.setdefault(entry["ResourceName"], set()).add(entry["PodUID"])
    return _foreign(offered), _foreign(taken)


def cdi_devices(folders: Iterator[Path]) -> Collection[str] | None:
    """Names of the devices that NVIDIA's specs have; None where there is no such spec."""
    found: set[str] | None = None
    for file in (file for folder in folders for file in _specs(folder)):
        with suppress(OSError, yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError):
            spec = yaml.safe_load(file.read_text())
            if spec.get("kind") == _CDI_KIND:
                devices = {f"{_CDI_KIND}={one['name']}" for one in spec.get("devices") or ()}
                found = (found or set()) | devices
    return found


def _specs(folder: Path) -> tuple[Path, ...]:
    try:
        return tuple(sorted(f for f in folder.iterdir() if f.suffix in (".yaml", ".json")))
    except OSError:
        return ()


def _foreign(by_resource: Mapping[str, set[str]]) -> Mapping[str, Collection[str]]:
    return {name: ids for name, ids in by_resource.items() if not names.is_seat_resource(name)}


def _strangers(at: Surroundings, picture: Picture) -> tuple[Stranger, ...]:
    """On the cards where foreign bytes stayed: whoever has just ended shows for a moment."""
    index = {gpu.uuid: gpu.index for gpu in picture.gpus}
    staying = [one for one in picture.outsiders if index[one.uuid] in picture.strangers]
    found = {_stranger(at.proc, index, one) for one in staying if _lives(at.proc, one.pid)}
    found |= _keepers(at, picture, picture.strangers - {one.gpu for one in found})
    return tuple(sorted(found, key=lambda one: (one.gpu, one.pid)))


def _keepers(at: Surroundings, picture: Picture, unexplained: Collection[int]) -> set[Stranger]:
    """Who keeps memory on these cards that is of no process which the driver knows."""
    try:
        known = frozenset(one.pid for one in at.inventory.processes() if _lives(at.proc, one.pid))
    except InventoryAway:
        known = frozenset()
    found = set()
    for gpu in (one for one in picture.gpus if one.index in unexplained):
        some = keepers(gpu.device_nodes, known, at.proc)
        named = {Stranger(gpu=gpu.index, pid=k.pid, command=k.command, keeps=True) for k in some}
        found |= named or {Stranger(gpu=gpu.index, pid=0, command="")}
    return found


def _lives(proc: Path, pid: int) -> bool:
    return (proc / str(pid)).exists()


def _stranger(proc: Path, index: Mapping[Any, int], process: GpuProcess) -> Stranger:
    return Stranger(gpu=index[process.uuid], pid=process.pid, command=_name(proc, process.pid))


def _named(proc: Path, name: str) -> tuple[int, ...]:
    pids = (int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())
    return tuple(sorted(pid for pid in pids if _name(proc, pid) == name))


def _name(proc: Path, pid: int) -> str:
    try:
        return (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def _default_runtime(file: Path) -> str:
    """Of the main file only; drop-ins are `kyb doctor`'s, who asks containerd itself."""
    with suppress(OSError, ValueError, AttributeError):
        plugins = tomllib.loads(file.read_text()).get("plugins", {})
        for name in ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"):
            found = plugins.get(name, {}).get("containerd", {}).get("default_runtime_name", "")
            if found:
                return str(found)
    return ""


def _is_open(file: Path) -> bool:
    """Open is NVIDIA's default, where the toolkit is installed."""
    with suppress(OSError, ValueError):
        return bool(tomllib.loads(file.read_text()).get(_OPEN, True))
    return False
