"""
Real GPUs, through NVML.

Rule: a question the driver does not support has a neutral answer (no NUMA node, no link, nobody's
memory); a card that fell off the bus is unhealthy and stays in the list, so that indices hold.
Rule: NVML's library is an argument, so that a fake one can pass the same contract suite.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pynvml

from kybernate.clients.gpus import Ailment, GpuProcess, InventoryAway, Setup
from kybernate.clients.gpus.nvml_links import links_between
from kybernate.clients.gpus.nvml_work import Worked
from kybernate.model.gpu import Gpu, Health
from kybernate.model.ids import GpuUuid

# Xids that are an application's fault, by NVIDIA's own list (k8s-device-plugin, health checks).
_APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
# A card without a critical Xid for so long is offered again: a reset takes seconds, and a fault
# that stays shows itself within minutes of use.
_QUIET_S = 300.0
# NVML tells NUMA nodes as a set of bits in longs; 16 of them are room for Linux's 1024 nodes.
_NUMA_WORDS, _WORD_BITS = 16, 64


class NvmlGpus:
    """An `Inventory` of what the NVIDIA driver sees. `library` is pynvml, or a fake of it."""

    def __init__(
        self, library: Any = pynvml, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises InventoryAway where there is no driver."""
        self._nvml = library
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._heard: dict[str, dict[Ailment, float]] = {}  # by card: until when each counts
        self._worked = Worked(library, monotonic)
        with self._translated():
            library.nvmlInit()
            count = library.nvmlDeviceGetCount()
            self._handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
            self._cards = self._read_cards()
        self._events = self._listen()

    def gpus(self) -> tuple[Gpu, ...]:
        """Every card. What never changes was read once; health is asked for."""
        self._hear()
        return tuple(
            replace(card, health=self._health(card, handle))
            for card, handle in zip(self._cards, self._handles, strict=True)
        )

    def usage(self) -> Mapping[GpuUuid, int]:
        """Bytes in use as NVML shows them; a lost card's are all of it."""
        return {
            card.uuid: self._used(card, handle)
            for card, handle in zip(self._cards, self._handles, strict=True)
        }

    def processes(self) -> tuple[GpuProcess, ...]:
        """Compute processes of every card; memory the driver does not tell counts as 0."""
        found: list[GpuProcess] = []
        for card, handle in zip(self._cards, self._handles, strict=True):
            found += self._running(card, handle)
        return tuple(found)

    def _running(self, card: Gpu, handle: Any) -> list[GpuProcess]:
        running = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        with self._lock:
            idle = self._worked.idle(card.uuid, handle, [one.pid for one in running])
        return [
            GpuProcess(
                pid=one.pid,
                uuid=card.uuid,
                used=one.usedGpuMemory or 0,
                idle_seconds=idle.get(one.pid),
            )
            for one in running
        ]

    def setups(self) -> Mapping[GpuUuid, Setup]:
        """By the driver's word; a card that has no such modes is as usual."""
        nvml = self._nvml
        found = {}
        for card, handle in zip(self._cards, self._handles, strict=True):
            mig = self._ask(nvml.nvmlDeviceGetMigMode, handle) or (0, 0)  # now, after a reset
            mode = self._ask(nvml.nvmlDeviceGetComputeMode, handle)
            found[card.uuid] = Setup(
                mig=mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
                exclusive=mode == nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
            )
        return found

    def ailments(self) -> Mapping[GpuUuid, tuple[Ailment, ...]]:
        """Events of the last minutes, and what stays until the card is reset."""
        self._hear()
        found = {
            card.uuid: tuple(self._ailments(card, handle))
            for card, handle in zip(self._cards, self._handles, strict=True)
        }
        return {uuid: some for uuid, some in found.items() if some}

    def driver(self) -> str:
        """For example 570.86.15."""
        with self._translated():
            return _text(self._nvml.nvmlSystemGetDriverVersion())

    def close(self) -> None:
        """Shut NVML down."""
        with suppress(self._nvml.NVMLError):
            if self._events is not None:
                self._nvml.nvmlEventSetFree(self._events)
            self._nvml.nvmlShutdown()

    def _read_cards(self) -> list[Gpu]:
        links = links_between(self._nvml, self._handles)
        return [self._read_card(i, h, links[i]) for i, h in enumerate(self._handles)]

    def _read_card(self, index: int, handle: Any, links: Mapping[int, int]) -> Gpu:
        nvml = self._nvml
        minor = self._ask(nvml.nvmlDeviceGetMinorNumber, handle)
        shown = self._memory(handle)
        return Gpu(
            index=index,
            uuid=GpuUuid(_text(nvml.nvmlDeviceGetUUID(handle))),
            product=_text(nvml.nvmlDeviceGetName(handle)),
            memory=int(shown.total) - int(shown.reserved),
            numa=self._numa(handle),
            links=links,
            device_nodes=() if minor is None else (f"/dev/nvidia{minor}",),
        )

    def _used(self, card: Gpu, handle: Any) -> int:
        shown = self._ask(self._memory, handle)
        return card.memory if shown is None else int(shown.used)

    def _memory(self, handle: Any) -> Any:
        """Version 2 tells what the driver keeps for itself (0.6 GiB of an H200) from what is used:
        nobody can ever have that, so it is not counted as memory."""
        return self._nvml.nvmlDeviceGetMemoryInfo(handle, self._nvml.nvmlMemory_v2)

    def _numa(self, handle: Any) -> int | None:
        """The host's NUMA node nearest to the card, where there is just one."""
        nvml = self._nvml
        words = self._ask(
            nvml.nvmlDeviceGetMemoryAffinity, handle, _NUMA_WORDS, nvml.NVML_AFFINITY_SCOPE_NODE
        )
        nodes = [
            word * _WORD_BITS + bit
            for word, bits in enumerate(words or ())
            for bit in range(_WORD_BITS)
            if bits >> bit & 1
        ]
        return nodes[0] if len(nodes) == 1 else None

    def _health(self, card: Gpu, handle: Any) -> Health:
        sick = any(one.sick for one in self._ailments(card, handle))
        return Health.UNHEALTHY if sick else Health.HEALTHY

    def _ailments(self, card: Gpu, handle: Any) -> Iterator[Ailment]:
        if self._ask(self._memory, handle) is None:
            yield Ailment(name="CardLost", words="it does not answer the driver")
        now = self._monotonic()
        with self._lock:
            heard = dict(self._heard.get(card.uuid, {}))
        yield from (one for one, until in heard.items() if now < until)
        rows = self._ask(self._nvml.nvmlDeviceGetRemappedRows, handle)
        _, _, waiting, failed = rows or (0, 0, 0, 0)
        if failed:
            words = "rows of its memory cannot be replaced any more: it has to be changed"
            yield Ailment(name="MemoryWornOut", words=words)
        elif waiting:
            words = "rows of its memory wait to be replaced: reset it when nobody is on it"
            yield Ailment(name="ResetNeeded", words=words, sick=False)

    def _listen(self) -> Any | None:
        """An event set with every card's critical errors; None where the driver has none. Each
        kind is asked for alone: a card without ECC refuses that one only."""
        nvml = self._nvml
        kinds = (nvml.nvmlEventTypeXidCriticalError, nvml.nvmlEventTypeDoubleBitEccError)
        try:
            events = self._nvml.nvmlEventSetCreate()
        except self._nvml.NVMLError:
            return None
        for handle in self._handles:
            for kind in kinds:
                self._ask(nvml.nvmlDeviceRegisterEvents, handle, kind, events)
        return events

    def _hear(self) -> None:
        """Take every event that is there, without waiting."""
        if self._events is None:
            return
        with self._lock, suppress(self._nvml.NVMLError):  # it ends with NVML's timeout
            while True:
                event = self._nvml.nvmlEventSetWait(self._events, 0)
                ailment = self._ailment(event)
                if ailment is not None:
                    uuid = _text(self._nvml.nvmlDeviceGetUUID(event.device))
                    of_card = self._heard.setdefault(uuid, {})
                    of_card[ailment] = self._monotonic() + _QUIET_S

    def _ailment(self, event: Any) -> Ailment | None:
        """None for an application's own fault."""
        if event.eventType == self._nvml.nvmlEventTypeDoubleBitEccError:
            return Ailment(name="EccUncorrected", words="its memory had an error beyond repair")
        if event.eventData in _APPLICATION_XIDS:
            return None
        return Ailment(name="Xid", words=f"the driver reported Xid {event.eventData}")

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any | None:
        """The answer, or None where the driver has none for this card."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError:
            return None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._nvml.NVMLError as error:
            raise InventoryAway(str(error)) from error


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
