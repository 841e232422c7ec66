"""
Build targets of the Dockerfile and run what is in them once.

Called by: `testbed.imaging.__main__`.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.imaging import bases
from testbed.imaging.buildah import Buildah

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "manifests/images/Dockerfile"
_STAGE = re.compile(r"^FROM (\S+) AS (\S+)$", re.MULTILINE)
_COPIED = re.compile(r"^COPY --from=(\S+) ", re.MULTILINE)
_ENTRYPOINT = "{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}"
_SHIPPED = "/usr/local/lib/kybernate"
# The real runc is the node's; whatever it is, it is called.
_HANDS_ON = (
    "echo runc = /bin/true > /tmp/runtime.conf"
    f" && KYB_RUNTIME_CONF=/tmp/runtime.conf {_SHIPPED}/kybernate-runc --version"
)
# What an image brings beside its process, and what would notice if that were not whole.
_ALSO: dict[str, tuple[tuple[str, ...], ...]] = {
    "controller": (("opa", "version"),),
    "nodeagent": (
        ("kyb", "install-node", "--help"),  # its init container
        ("nsenter", "--version"),
        ("sh", "-c", _HANDS_ON),
        ("python", "-c", f"import ctypes; ctypes.CDLL('{_SHIPPED}/libkybguest.so')"),
        ("test", "-s", f"{_SHIPPED}/kyb-closed.so"),
        ("test", "-x", "/opt/of-the-node/runc", "-a", "-x", "/opt/of-the-node/criu"),
    ),
}


class TrialFailed(Exception):
    """An image is not what the Dockerfile says; the message says how."""


@dataclass(frozen=True, slots=True)
class Tried:
    """An image that was built and ran."""

    target: str
    user: str
    ran: tuple[str, ...]


def targets(dockerfile: str) -> tuple[str, ...]:
    """What is built for people: what has `base` below it, in the file's order."""
    return tuple(name for start, name in _STAGE.findall(dockerfile) if start == "base")


def starts(dockerfile: str) -> set[str]:
    """The images of others it starts from, and copies from."""
    stages = {name for _, name in _STAGE.findall(dockerfile)}
    named = {start for start, _ in _STAGE.findall(dockerfile)} | set(_COPIED.findall(dockerfile))
    return named - stages


def name_of(target: str) -> str:
    """Of its image."""
    return f"docker.io/kybernate/{target}:0.1.0"


def build(builder: Buildah, wanted: Collection[str], say: Callable[[str], None]) -> Iterator[Tried]:
    """These targets, each as soon as it is done. Raises BaseFailed, BuildahFailed, TrialFailed."""
    say("making what the Dockerfile starts from")
    for line in bases.make(builder, starts(DOCKERFILE.read_text())):
        say(line)
    for target in wanted:
        say(f"building {target}")
        image = name_of(target)
        builder.build(DOCKERFILE, ROOT, target, image)
        yield _tried(builder, image, target)


def _tried(builder: Buildah, image: str, target: str) -> Tried:
    entrypoint = builder.asked(image, _ENTRYPOINT).split("\n")
    user = builder.asked(image, "{{.OCIv1.Config.User}}")
    commands: Sequence[Sequence[str]] = ((*entrypoint, "--help"), *_ALSO.get(target, ()))
    with _container(builder, image) as container:
        ids = ":".join(builder.run(container, ["id", kind]).strip() for kind in ("-u", "-g"))
        if ids != user:
            raise TrialFailed(f"{target} runs as {ids}, not as {user}")
        for argv in commands:
            builder.run(container, argv)
    return Tried(target, user, tuple(" ".join(one) for one in commands))


@contextmanager
def _container(builder: Buildah, image: str) -> Iterator[str]:
    name = builder.new(image)
    try:
        yield name
    finally:
        builder.remove(name)
