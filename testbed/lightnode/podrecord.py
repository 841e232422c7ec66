"""
What must not be forgotten of a pod when we are killed, as one file in the pod's folder.

Called by: `podlife`. Rule: written before what it announces is done, replaced by one rename.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from testbed.lightnode.podspec import Identity
from testbed.lightnode.podstatus import Ended

_FILE = "pod.json"


@dataclass
class PodRecord:
    """One pod's life so far. `untold` are (container id, exit code) the agent has not heard."""

    namespace: str
    name: str
    uid: str
    pod_ip: str
    started_at: float
    attempt: int = 0
    restarts: int = 0
    told: bool = False  # the agent knows of this attempt's container
    phase: str = ""  # once it is settled: Succeeded or Failed
    failure: tuple[str, str] | None = None
    last: Ended | None = None
    untold: list[tuple[str, int]] = field(default_factory=list)

    @classmethod
    def new(cls, pod: Identity, pod_ip: str, now: float) -> "PodRecord":
        """A pod that begins."""
        return cls(pod.namespace, pod.name, pod.uid, pod_ip, now)

    @property
    def identity(self) -> Identity:
        """Whose record it is."""
        return Identity(namespace=self.namespace, name=self.name, uid=self.uid)

    @property
    def container_id(self) -> str:
        """Of this attempt's container."""
        return f"{self.uid}-{self.attempt}"


class Records:
    """The folders of a node's pods."""

    def __init__(self, work: Path) -> None:
        self._pods = work / "pods"
        self._logs = work / "logs"
        self._pods.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)

    def folder(self, uid: str) -> Path:
        """A pod's own."""
        return self._pods / uid

    def attempt(self, record: PodRecord) -> Path:
        """The folder of its container."""
        return self.folder(record.uid) / str(record.attempt)

    def log(self, pod: Identity) -> Path:
        """What its containers print, one after the other; it outlives the pod."""
        return self._logs / f"{pod.namespace}_{pod.name}_{pod.uid}.log"

    def write(self, record: PodRecord) -> None:
        """Replace the file."""
        folder = self.folder(record.uid)
        folder.mkdir(exist_ok=True)
        draft = folder / f".{_FILE}"
        draft.write_text(json.dumps(asdict(record)))
        draft.replace(folder / _FILE)

    def read(self, uid: str) -> PodRecord | None:
        """None where the pod is new."""
        try:
            body = json.loads((self.folder(uid) / _FILE).read_text())
        except FileNotFoundError:
            return None
        body["last"] = body["last"] and Ended(**body["last"])
        body["failure"] = body["failure"] and tuple(body["failure"])
        body["untold"] = [(one, code) for one, code in body["untold"]]
        return PodRecord(**body)

    def all(self) -> Iterator[PodRecord]:
        """Every pod with a record."""
        for folder in sorted(self._pods.iterdir()):
            record = self.read(folder.name)
            if record is not None:
                yield record

    def forget(self, uid: str) -> None:
        """Remove the pod's folder; its log stays."""
        shutil.rmtree(self.folder(uid), ignore_errors=True)
