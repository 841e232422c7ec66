"""
How long ago processes worked on a card, from NVML's samples of their utilisation.

Called by: `kybernate.clients.gpus.nvml`, whenever processes are asked for.
Rule: the driver samples several times a second and names who did something; who is not named did
nothing that it could see. Of a time in which nobody looked for longer than its buffer surely
reaches back nothing is concluded: everybody counts as having worked. Where a card has no samples
(MIG, old drivers) nobody can tell, and nothing is said.
Work of a few microseconds now and then rounds to nothing: other signals see that.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

# The driver keeps some seconds of samples (100 of them, a few each second).
_REACHES_BACK_S = 5.0
_KINDS = ("smUtil", "memUtil", "encUtil", "decUtil")


class Worked:
    """Of all cards. Not thread safe: its user has a lock."""

    def __init__(self, nvml: Any, monotonic: Callable[[], float]) -> None:
        self._nvml, self._monotonic = nvml, monotonic
        self._seen: dict[str, tuple[int, float]] = {}  # card: the driver's time, and ours
        self._worked: dict[tuple[str, int], float] = {}
        self._unable: set[str] = set()

    def idle(self, uuid: str, handle: Any, pids: Iterable[int]) -> Mapping[int, float]:
        """Seconds since each of these last worked there, or was first seen; empty where that cannot
        be told now."""
        pids, now = frozenset(pids), self._monotonic()
        busy = self._busy(uuid, handle, now) if uuid not in self._unable else None
        mine = {key: at for key, at in self._worked.items() if key[0] == uuid}
        for key in mine:
            del self._worked[key]
        if busy is None:
            return {}
        for pid in pids:
            at = now if pid in busy else mine.get((uuid, pid), now)
            self._worked[uuid, pid] = at
        return {pid: now - self._worked[uuid, pid] for pid in pids}

    def _busy(self, uuid: str, handle: Any, now: float) -> frozenset[int] | None:
        """Who worked since the last look; None where nobody can tell. After a long time without a
        look all that was known is forgotten, so that everybody is new."""
        since, looked = self._seen.get(uuid, (0, now))
        if now - looked > _REACHES_BACK_S:
            self._worked = {key: at for key, at in self._worked.items() if key[0] != uuid}
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(handle, since)
        except self._nvml.NVMLError as error:
            if error.value not in self._none():
                self._note(uuid, error)
                return None
            samples = ()
        newest = max((int(one.timeStamp) for one in samples), default=since)
        self._seen[uuid] = (newest, now)
        return frozenset(
            int(one.pid)
            for one in samples
            if int(one.timeStamp) > since and any(getattr(one, kind) for kind in _KINDS)
        )

    def _none(self) -> frozenset[int]:
        """No samples: nobody did anything."""
        return frozenset({self._nvml.NVML_SUCCESS, self._nvml.NVML_ERROR_NOT_FOUND})

    def _note(self, uuid: str, error: Any) -> None:
        nvml = self._nvml
        if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            self._unable.add(uuid)
