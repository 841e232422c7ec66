"""
Preparing a container, made of nothing but its bundle yet, to be restored from an image.

Called by: `nodeagent.images.runc`.
Rule: the image is only read. What must differ in the new pod is a copy of our own.
Rule: what can be refused is refused before the container's files are touched; afterwards only this
image will do for it.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nodeagent.images import criu, facts, identity, pages, refit, rootfs, tree, volumes, wire
from nodeagent.images.body import CRIU_CONFIG, read_config, write_config
from nodeagent.images.dumping import Tools
from nodeagent.images.folders import CRIU, OPTIONS, TOUCHED, WAKE, WORK
from nodeagent.images.identity import Identity
from nodeagent.images.port import Unrestorable
from nodeagent.linux import cgroups

# Options of CRIU's, as runc 1.1 does not know all of its own that later ones have. Cgroups of v1
# are left to the two: runc says where the new ones are, and CRIU restores the cgroup namespace.
_OPTIONS = ("leave-stopped",)
_WORDS_MOST = 2000  # of what changed; a reply's line has 16 KiB


def prepare(tools: Tools, image: Path, bundle: Path) -> Mapping[str, str]:
    """The fields of the answer to `creating`. Raises Unrestorable, BodyGone."""
    facts.check(image, criu.version(tools.criu))
    was, config = read_config(image), dict(read_config(bundle))
    volumes.compare(was, config)
    wake = bundle / WAKE
    try:
        before, now = identity.read(image), identity.of(config)
        _check_untouched(wake, image)
        shutil.rmtree(wake, ignore_errors=True)  # of a try before
        closed = _images(image, wake, (before, now))
        _choose(tools, wake, config)
        (wake / TOUCHED).write_text(str(image))
        _files(image, bundle, config)
        tree.put(
            bundle / "rootfs", identity.TOLD, identity.told(before, now), identity.user(config)
        )
        annotations = dict(_mapping(config.get("annotations")))
        config["annotations"] = {**annotations, CRIU_CONFIG: str(wake / OPTIONS)}
        write_config(bundle, config)
    except (OSError, tree.BadTree, wire.NotAnImage) as error:
        raise Unrestorable(str(error)) from error
    said = [f"connections to the outside that are closed: {closed}"] if closed else []
    changed = "; ".join((*identity.changes(before, now), *said))[:_WORDS_MOST]
    return {"image": str(wake / CRIU), "work": str(wake / WORK), "changed": changed}


def _images(image: Path, wake: Path, who: tuple[Identity, Identity]) -> int:
    """Fill the restoration's folder; how many connections are closed."""
    before, now = who
    old, new = image / CRIU, wake / CRIU
    pages.check(old)
    _link(old, new)
    (wake / WORK).mkdir(mode=0o700)
    for names in old.glob(refit.HOST_NAMES):
        refit.host_name(names, new / names.name, str(now["host"]))
    return refit.sockets(old / refit.FILE, new / refit.FILE, identity.moved(before, now))


def _choose(tools: Tools, wake: Path, config: Mapping[str, object]) -> None:
    """CRIU's options. On v2 runc does not tell CRIU where the new cgroup is, and it would restore
    into the old container's; where runc does tell, its word counts before this line."""
    there = cgroups.path_of(config)
    root = (f"cgroup-root {there}",) if there else ()
    (wake / OPTIONS).write_text(criu.options(tools.criu, *_OPTIONS, *root, *tools.more))


def _files(image: Path, bundle: Path, config: Mapping[str, object]) -> None:
    with (image / rootfs.FILE).open("rb") as source:
        tree.unpack(source, bundle / "rootfs")
    volumes.unpack(config, image)


def _check_untouched(wake: Path, image: Path) -> None:
    """Raises Unrestorable for a container with files of another image: only a new one will do."""
    with suppress(FileNotFoundError):
        before = (wake / TOUCHED).read_text()
        if before != str(image):
            raise Unrestorable("this container was prepared for another checkpoint already")


def _link(image: Path, into: Path) -> None:
    """A folder with the names of an image's files; only names, as these can be many GiB.

    The links are relative: CRIU opens them when its root is the container's already, but the folder
    it opens them in is still where it was.
    """
    into.mkdir(mode=0o700, parents=True)
    to = os.path.relpath(image.resolve(), into.resolve())
    for file in image.iterdir():
        (into / file.name).symlink_to(f"{to}/{file.name}")


def _mapping(value: object) -> Mapping[str, str]:
    return value if isinstance(value, dict) else {}
