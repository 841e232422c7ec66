"""
Held containers that were announced and are not let in yet, on disk before the runtime is answered.

Called by containers. Whoever announces is told "heard" once and does not say it again, so an agent
that dies in between must still know.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.runtime.logs import get_logger
from nodeagent.disk.durable import DRAFT, seal

_VERSION = 1
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """What the runtime said of a held container."""

    key: WorkloadKey
    uid: PodUid | None
    container: str
    container_id: str
    pid: int
    pid_started: int
    exec_fifo: Path


class Announcements:
    """A folder with one sealed file per container. What was held before a reboot is forgotten: by
    chance, another process could have its number and its start."""

    def __init__(self, folder: Path, boot: str) -> None:
        self._folder, self._boot = folder, boot
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, created: Created) -> None:
        """Remember it. Raises OSError, ValueError for an id that could be a path."""
        body = {
            "version": _VERSION,
            "boot": self._boot,
            "key": str(created.key),
            "uid": created.uid,
            "container": created.container,
            "container_id": created.container_id,
            "pid": created.pid,
            "pid_started": created.pid_started,
            "exec_fifo": str(created.exec_fifo),
        }
        seal(self._path(created.container_id), orjson.dumps(body))

    def forget(self, container_id: str) -> None:
        """It was let in, or ended. Forgetting twice is fine."""
        with suppress(FileNotFoundError):
            self._path(container_id).unlink()

    def all(self) -> tuple[Created, ...]:
        """Everything remembered. What cannot be read is logged and cleared away."""
        found = []
        for path in sorted(self._folder.iterdir()):
            if path.name.endswith(DRAFT):
                path.unlink()
                continue
            try:
                body = orjson.loads(path.read_bytes())
                if body.get("boot", self._boot) == self._boot:
                    found.append(_read(body))
                else:
                    path.unlink()
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                get_logger().error("unreadable announcement", path=str(path), why=str(error))
                path.unlink()
        return tuple(found)

    def _path(self, container_id: str) -> Path:
        if not container_id or "/" in container_id or container_id.startswith("."):
            raise ValueError(f"not a container id: {container_id!r}")
        return self._folder / f"{container_id}{_SUFFIX}"


def _read(body: Mapping[str, Any]) -> Created:
    if body["version"] != _VERSION:
        raise ValueError(f"version {body['version']}")
    return Created(
        key=WorkloadKey.parse(body["key"]),
        uid=PodUid(body["uid"]) if body["uid"] else None,
        container=body["container"],
        container_id=body["container_id"],
        pid=body["pid"],
        pid_started=body["pid_started"],
        exec_fifo=Path(body["exec_fifo"]),
    )
