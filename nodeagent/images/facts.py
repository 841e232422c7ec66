"""
What an image fits: written beside it, compared before it is restored.

Called by: `nodeagent.images.dumping`, `nodeagent.images.restoring`.
Rule: memory is full of what the kernel and the processor said when programs asked. Another kernel
or a processor that lacks something is refused, in words, and not tried.
"""

import platform
from collections.abc import Mapping
from pathlib import Path

import orjson

from nodeagent.images.body import Body
from nodeagent.images.port import Unrestorable
from nodeagent.linux import processes

FILE = "image.json"
KERNEL, MACHINE, FLAGS, CRIU, BOOT = "kernel", "machine", "cpu", "criu", "boot"
COMMAND, CONTAINER = "command", "container"


def of(body: Body, criu: str) -> Mapping[str, str]:
    """Of a container on this machine; `criu` is its version."""
    return {**_here(), CRIU: criu, BOOT: processes.boot_id(), CONTAINER: body.container_id}


def check(image: Path, criu: str) -> Mapping[str, str]:
    """The facts of an image that can be restored on this machine. Raises Unrestorable."""
    known = read(image)
    here = _here()
    for name, what in ((KERNEL, "kernel"), (MACHINE, "machine")):
        if known.get(name) != here[name]:
            raise Unrestorable(
                f"it was made under {what} {known.get(name)}, and here is {here[name]}"
            )
    lacking = sorted(set(known.get(FLAGS, "").split()) - set(here[FLAGS].split()))
    if lacking:
        raise Unrestorable(f"this processor lacks {', '.join(lacking)}")
    if _numbers(known.get(CRIU, "")) > _numbers(criu):
        raise Unrestorable(f"it was made by CRIU {known.get(CRIU)}, and here is {criu or 'none'}")
    return known


def read(image: Path) -> Mapping[str, str]:
    """Raises Unrestorable."""
    try:
        known = orjson.loads((image / FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise Unrestorable(f"the image's {FILE} cannot be read: {error}") from error
    if not isinstance(known, dict) or not all(isinstance(v, str) for v in known.values()):
        raise Unrestorable(f"the image's {FILE} is not an object of texts")
    return known


def _here() -> dict[str, str]:
    return {KERNEL: platform.release(), MACHINE: platform.machine(), FLAGS: _flags()}


def _flags() -> str:
    """Of the first processor; the others are the same on every machine that runs containers."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return value.strip()
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
