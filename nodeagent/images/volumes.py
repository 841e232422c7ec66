"""
What a container sees that is neither its own nor somebody's data: mounts by what becomes of them.

Called by: `nodeagent.images.dumping`, `nodeagent.images.restoring`.
Carried: /dev/shm and emptyDir volumes, whose contents begin empty in another pod. All others are
found by their names in the new pod: secrets, tokens, config maps anew, claims and host paths as
they are. Both pods must have the same mounts, or CRIU would not know where files are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nodeagent.images import tree
from nodeagent.images.port import Unrestorable

FOLDER = "volumes"
_SHM = "/dev/shm"  # noqa: S108 - a mount of the container, not a file of ours
_EMPTY_DIR = "/volumes/kubernetes.io~empty-dir/"


@dataclass(frozen=True, slots=True)
class Bind:
    """A bind mount of a container's config."""

    destination: str
    source: Path

    @property
    def carried(self) -> bool:
        """Whether an image has its contents."""
        return self.destination == _SHM or _EMPTY_DIR in f"{self.source}/"


def binds(config: Mapping[str, object]) -> tuple[Bind, ...]:
    """Of a config.json, by destination."""
    mounts = config.get("mounts")
    found = [
        Bind(str(mount.get("destination")).rstrip("/") or "/", Path(str(mount.get("source"))))
        for mount in (mounts if isinstance(mounts, list) else [])
        if isinstance(mount, dict) and _is_bind(mount)
    ]
    return tuple(sorted(found, key=lambda one: one.destination))


def pack(config: Mapping[str, object], into: Path) -> None:
    """The carried ones, each a file. Raises BadTree, OSError."""
    folder = into / FOLDER
    folder.mkdir(mode=0o700)
    for number, bind in enumerate(_carried(config)):
        if bind.source.is_dir():
            with (folder / f"{number}.tar").open("xb") as out:
                tree.pack(bind.source, out)


def unpack(config: Mapping[str, object], image: Path) -> None:
    """Into the same ones of another container. Raises BadTree, OSError."""
    for number, bind in enumerate(_carried(config)):
        file = image / FOLDER / f"{number}.tar"
        if file.exists():
            with file.open("rb") as source:
                tree.unpack(source, bind.source)


def compare(was: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Raises Unrestorable where the mounts are not the same."""
    old = {bind.destination: bind for bind in binds(was)}
    new = {bind.destination: bind for bind in binds(now)}
    lacking, more = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    if lacking:
        raise Unrestorable(f"this pod has no {', '.join(lacking)}, which the checkpointed one had")
    if more:
        raise Unrestorable(f"this pod has {', '.join(more)}, which the checkpointed one had not")
    differs = [name for name in sorted(old) if old[name].carried != new[name].carried]
    if differs:
        raise Unrestorable(f"{', '.join(differs)}: another kind of volume than before")


def _carried(config: Mapping[str, object]) -> tuple[Bind, ...]:
    return tuple(bind for bind in binds(config) if bind.carried)


def _is_bind(mount: Mapping[str, object]) -> bool:
    options = mount.get("options")
    chosen = options if isinstance(options, list) else []
    return mount.get("type") == "bind" or "bind" in chosen or "rbind" in chosen
