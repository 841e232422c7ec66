"""
A container as runc knows it: which process is its first, where its bundle is.

Called by: `nodeagent.images`, and whoever asks it for an image.
Rule: a process number names nobody without its start time; a body is checked before it is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from kybernate.clients.errors import Refused
from nodeagent.linux import processes

_STATE = "state.json"
CRIU_CONFIG = "org.criu.config"  # an annotation that would choose CRIU's options for us


class BodyGone(Refused):
    """The container is not there any more, or runc's folder of it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A container with a process that runs or stands."""

    container_id: str
    pid: int  # the container's first process, as this process numbers them
    started: int  # clock ticks from boot to its start
    runc_root: Path  # runc's `--root`
    bundle: Path
    labels: Mapping[str, str]

    @property
    def rootfs(self) -> Path:
        """Where it is mounted, in the namespace of containerd."""
        return self.bundle / "rootfs"

    @property
    def config(self) -> Mapping[str, object]:
        """The bundle's config.json. Raises BodyGone."""
        return read_config(self.bundle)

    def check(self) -> None:
        """Raises BodyGone where the first process is another one by now."""
        if not processes.is_same(self.pid, self.started):
            raise BodyGone(f"the first process of container {self.container_id} has ended")


def body_of(container_id: str, pid: int, started: int, fifo: Path) -> Body:
    """The body of a container that was told of by its exec FIFO, as it is in the agent's records.

    Raises BodyGone.
    """
    root = fifo.parent.parent
    try:
        state = orjson.loads((root / container_id / _STATE).read_bytes())
        labels = dict(label.partition("=")[::2] for label in state["config"]["labels"])
        bundle = Path(labels["bundle"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BodyGone(f"runc's state of container {container_id}: {error}") from error
    body = Body(
        container_id=container_id,
        pid=pid,
        started=started,
        runc_root=root,
        bundle=bundle,
        labels=labels,
    )
    body.check()
    return body


def read_config(bundle: Path) -> Mapping[str, object]:
    """A bundle's config.json. Raises BodyGone."""
    try:
        config = orjson.loads((bundle / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BodyGone(f"{bundle / 'config.json'}: {error}") from error
    if not isinstance(config, dict):
        raise BodyGone(f"{bundle / 'config.json'} is no JSON object")
    return config


def write_config(bundle: Path, config: Mapping[str, object]) -> None:
    """Put another config.json in its place, whole or not at all."""
    draft = bundle / ".config.json.draft"
    draft.touch(0o600)
    draft.write_bytes(orjson.dumps(config))
    draft.replace(bundle / "config.json")
