"""
One suite for every inventory: whatever is asked, the answers agree with each other.

Faked: NVML, by a module with its functions, and by a library in C under NVML's real client, with
the card of testbed/fakecuda (the real one runs under the marker `gpu`).
"""

import ctypes
from contextlib import closing
from types import SimpleNamespace

import pynvml
import pytest

from kybernate.clients.gpus import InventoryAway, Setup
from kybernate.clients.gpus.choosing import InventorySource, open_answering
from kybernate.clients.gpus.listed import ListedGpus
from kybernate.clients.gpus.nvml import NvmlGpus
from kybernate.clients.gpus.simulated import SimulatedGpus
from kybernate.model.gpu import Gpu, Health
from kybernate.model.topology import PHB, nvlink
from testbed import fakecuda
from testbed.assets import native

GIB = 2**30


class FakeNvml:
    """Two cards with three NVLinks between them; what a test changes, it changes here."""

    NVMLError = pynvml.NVMLError
    NVML_NVLINK_MAX_LINKS = 4
    NVML_FEATURE_ENABLED = 1
    NVML_AFFINITY_SCOPE_NODE = 0
    nvmlMemory_v2 = 2  # noqa: N815
    NVML_NVLINK_DEVICE_TYPE_SWITCH = 2
    NVML_TOPOLOGY_INTERNAL, NVML_TOPOLOGY_SINGLE, NVML_TOPOLOGY_MULTIPLE = 0, 10, 20
    NVML_TOPOLOGY_HOSTBRIDGE, NVML_TOPOLOGY_NODE = 30, 40
    nvmlEventTypeXidCriticalError = 8  # noqa: N815
    nvmlEventTypeDoubleBitEccError = 2  # noqa: N815
    NVML_DEVICE_MIG_ENABLE, NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = 1, 3
    NVML_SUCCESS, NVML_ERROR_NOT_FOUND = 0, pynvml.NVML_ERROR_NOT_FOUND
    NVML_ERROR_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
    NVML_ERROR_FUNCTION_NOT_FOUND = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND

    def __init__(self):
        self.lost = set()
        self.links = 3
        self.kind = 1
        self.events = []  # card, kind, number
        self.rows = (0, 0, 0, 0)
        self.mig, self.mode = (0, 0), 0
        self.samples = []  # card, process, the driver's time, part of the card in percent
        self.samples_fail = None

    def nvmlInit(self):  # noqa: N802
        pass

    nvmlShutdown = nvmlInit  # noqa: N815

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return "570.1"

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetMigMode(self, handle):  # noqa: N802
        if handle == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self.mig

    def nvmlDeviceGetComputeMode(self, handle):  # noqa: N802
        return self.mode

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return "NVIDIA Fake"

    def nvmlDeviceGetMinorNumber(self, handle):  # noqa: N802
        return handle

    def nvmlDeviceGetMemoryAffinity(self, handle, words, scope):  # noqa: N802
        return [1 << handle, *[0] * (words - 1)]

    def nvmlDeviceGetMemoryInfo(self, handle, version):  # noqa: N802
        if handle in self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(total=80 * GIB, reserved=GIB, used=(handle + 1) * GIB)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):  # noqa: N802
        return [SimpleNamespace(pid=100 + handle, usedGpuMemory=None if handle else GIB)]

    def nvmlDeviceGetProcessUtilization(self, handle, since):  # noqa: N802
        if self.samples_fail is not None:
            raise pynvml.NVMLError(self.samples_fail)
        found = [one for one in self.samples if one[0] == handle and one[2] > since]
        if not found:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return [
            SimpleNamespace(pid=pid, timeStamp=at, smUtil=part, memUtil=0, encUtil=0, decUtil=0)
            for _, pid, at, part in found
        ]

    def nvmlDeviceGetPciInfo(self, handle):  # noqa: N802
        return SimpleNamespace(busId=f"0000:0{handle}:00.0")

    def nvmlDeviceGetNvLinkState(self, handle, link):  # noqa: N802
        if link >= self.links:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return 1

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle, link):  # noqa: N802
        return self.kind

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle, link):  # noqa: N802
        return self.nvmlDeviceGetPciInfo(1 - handle)

    def nvmlDeviceGetTopologyCommonAncestor(self, one, other):  # noqa: N802
        return self.NVML_TOPOLOGY_HOSTBRIDGE

    def nvmlEventSetCreate(self):  # noqa: N802
        return "events"

    def nvmlEventSetFree(self, events):  # noqa: N802
        pass

    def nvmlDeviceRegisterEvents(self, handle, kinds, events):  # noqa: N802
        pass

    def nvmlEventSetWait(self, events, milliseconds):  # noqa: N802
        if not self.events:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        handle, kind, number = self.events.pop(0)
        return SimpleNamespace(device=handle, eventType=kind, eventData=number)

    def nvmlDeviceGetRemappedRows(self, handle):  # noqa: N802
        if handle == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self.rows


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """NVML's real client, over a library that is not NVIDIA's; the folder of its card."""
    if native.why_not():
        pytest.skip(native.why_not())
    monkeypatch.setenv("KYB_FAKE_CARD", str(tmp_path / "card"))
    library = ctypes.CDLL(str(fakecuda.build_nvml() / fakecuda.NVML))
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return tmp_path


REAL = pytest.param("real", marks=pytest.mark.gpu)


@pytest.fixture(params=["listed", "simulated", "nvml", "stand-in", REAL])
def inventory(request):
    match request.param:
        case "listed":
            cards = [Gpu(index=i, uuid=f"GPU-{i}", product="P", memory=GIB) for i in range(2)]
            made = ListedGpus(tuple(cards))
        case "simulated":
            made = SimulatedGpus(request.getfixturevalue("socket"))
        case "nvml":
            made = NvmlGpus(FakeNvml())
        case "stand-in":
            request.getfixturevalue("stand_in")
            made = NvmlGpus()
        case _:
            try:
                made = NvmlGpus()
            except InventoryAway as away:
                pytest.skip(f"no NVIDIA driver here: {away}")
    yield made
    made.close()


def test_cards_come_by_index_and_differ(inventory):
    cards = inventory.gpus()
    assert [card.index for card in cards] == list(range(len(cards)))
    assert len({card.uuid for card in cards}) == len(cards) > 0
    assert all(card.memory > 0 and card.product for card in cards)


def test_cards_stay_the_same(inventory):
    assert inventory.gpus() == inventory.gpus()


def test_every_card_has_its_usage_within_its_memory(inventory):
    memory = {card.uuid: card.memory for card in inventory.gpus()}
    usage = inventory.usage()
    assert usage.keys() == memory.keys()
    assert all(0 <= usage[uuid] <= memory[uuid] for uuid in memory)


def test_links_lead_to_other_cards_and_back(inventory):
    cards = {card.index: card for card in inventory.gpus()}
    for card in cards.values():
        assert card.index not in card.links
        assert all(cards[far].links[card.index] == rank for far, rank in card.links.items())


def test_processes_are_on_cards_that_exist(inventory):
    uuids = {card.uuid for card in inventory.gpus()}
    assert all(one.uuid in uuids and one.used >= 0 for one in inventory.processes())


def test_the_driver_has_a_version(inventory):
    assert inventory.driver()


def test_setups_are_of_cards_that_exist(inventory):
    uuids = {card.uuid for card in inventory.gpus()}
    assert set(inventory.setups()) <= uuids


def test_what_is_wrong_is_with_cards_that_exist_and_sick_ones_are_unhealthy(inventory):
    sick = {u for u, some in inventory.ailments().items() if any(one.sick for one in some)}
    assert sick == {one.uuid for one in inventory.gpus() if one.health is Health.UNHEALTHY}


def test_cards_cut_into_instances_or_open_to_one_process_are_told():
    fake = FakeNvml()
    inventory = NvmlGpus(fake)
    usual = Setup(mig=False, exclusive=False)
    assert inventory.setups() == {"GPU-0": usual, "GPU-1": usual}
    fake.mig, fake.mode = (1, 1), 3
    exclusive = Setup(mig=False, exclusive=True)  # this one has no MIG
    assert inventory.setups() == {"GPU-0": exclusive, "GPU-1": Setup(mig=True, exclusive=True)}


def test_a_simulated_process_is_seen_with_its_work(socket, attach):
    one = attach()
    segment = one.allocate("GPU-big", 40 * GIB)
    one.increment(segment)
    inventory = SimulatedGpus(socket)
    (seen,) = inventory.processes()
    inventory.close()
    assert (seen.used, seen.submitted) == (40 * GIB, 1)
    assert seen.idle_seconds >= 0


def test_a_simulated_device_that_is_away_is_said_to_be_away(tmp_path):
    with pytest.raises(InventoryAway):
        SimulatedGpus(tmp_path / "none.sock").gpus()


def test_nvlinks_count_and_else_the_path_over_pcie():
    fake = FakeNvml()
    assert NvmlGpus(fake).gpus()[0].links == {1: nvlink(3)}
    fake.links = 0
    assert NvmlGpus(fake).gpus()[0].links == {1: PHB}


def test_nvlinks_into_a_switch_reach_every_card_there():
    fake = FakeNvml()
    fake.kind = fake.NVML_NVLINK_DEVICE_TYPE_SWITCH
    assert NvmlGpus(fake).gpus()[1].links == {0: nvlink(3)}


def test_a_lost_card_is_unhealthy_and_full_until_it_is_back():
    fake = FakeNvml()
    inventory = NvmlGpus(fake)
    fake.lost.add(1)
    assert [card.health for card in inventory.gpus()] == [Health.HEALTHY, Health.UNHEALTHY]
    assert inventory.usage()["GPU-1"] == 79 * GIB
    fake.lost.clear()
    assert inventory.gpus()[1].health is Health.HEALTHY


@pytest.mark.parametrize(
    ("xid", "health"),
    [
        pytest.param(79, Health.UNHEALTHY, id="fell-off-the-bus"),
        pytest.param(31, Health.HEALTHY, id="application-fault"),
    ],
)
def test_a_critical_xid_makes_a_card_unhealthy_for_a_while(xid, health):
    fake, now = FakeNvml(), [1000.0]
    inventory = NvmlGpus(fake, monotonic=lambda: now[0])
    fake.events.append((0, fake.nvmlEventTypeXidCriticalError, xid))
    assert inventory.gpus()[0].health is health
    now[0] += 301
    assert inventory.gpus()[0].health is Health.HEALTHY


def test_what_the_driver_says_of_a_card_has_a_name_and_goes_when_it_is_over():
    fake, now = FakeNvml(), [1000.0]
    inventory = NvmlGpus(fake, monotonic=lambda: now[0])
    fake.events.append((1, fake.nvmlEventTypeXidCriticalError, 79))
    fake.events.append((1, fake.nvmlEventTypeDoubleBitEccError, 0))
    fake.rows = (0, 1, 1, 0)
    (found,) = inventory.ailments().values()
    assert [one.name for one in found] == ["Xid", "EccUncorrected", "ResetNeeded"]
    assert "79" in found[0].words
    now[0] += 301
    assert [one.name for one in inventory.ailments()["GPU-1"]] == ["ResetNeeded"]
    assert inventory.gpus()[1].health is Health.HEALTHY  # it waits for a quiet moment
    fake.rows = (0, 1, 0, 1)
    assert [one.name for one in inventory.ailments()["GPU-1"]] == ["MemoryWornOut"]
    assert inventory.gpus()[1].health is Health.UNHEALTHY


def test_events_come_through_nvmls_own_client(stand_in):
    with closing(NvmlGpus()) as inventory:
        assert inventory.ailments() == {}
        (stand_in / "card.events").write_text("xid 31\nxid 79\necc\n")
        (found,) = inventory.ailments().values()
        assert [one.name for one in found] == ["Xid", "EccUncorrected"]
        assert inventory.gpus()[0].health is Health.UNHEALTHY


def test_no_driver_is_said_to_be_away():
    class Absent(FakeNvml):
        def nvmlInit(self):  # noqa: N802
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    with pytest.raises(InventoryAway):
        NvmlGpus(Absent())


def test_what_the_driver_keeps_for_itself_is_not_memory_to_be_had():
    card = NvmlGpus(FakeNvml()).gpus()[1]
    assert (card.memory, card.numa) == (79 * GIB, 1)


def test_an_inventory_that_does_not_answer_is_closed_again(tmp_path, monkeypatch):
    closed = []

    def close(self):
        closed.append(self)

    monkeypatch.setattr(SimulatedGpus, "close", close)
    with pytest.raises(InventoryAway):
        open_answering(InventorySource.SIMULATED, (), tmp_path / "nobody.sock")
    assert len(closed) == 1


class Hand:
    """A clock a test sets."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def idle(gpus):
    return {one.pid: one.idle_seconds for one in gpus.processes()}


def test_who_was_seen_at_work_is_idle_from_then_on():
    nvml, hand = FakeNvml(), Hand()
    gpus = NvmlGpus(nvml, hand)
    assert idle(gpus) == {100: 0.0, 101: 0.0}, "before the first look nobody knows"
    hand.now += 3.0
    nvml.samples = [(0, 100, 5_000, 40)]
    assert idle(gpus) == {100: 0.0, 101: 3.0}
    hand.now += 2.0
    assert idle(gpus) == {100: 2.0, 101: 5.0}, "the same sample is no new work"
    nvml.samples += [(1, 101, 6_000, 1), (0, 100, 6_000, 0)]
    assert idle(gpus) == {100: 2.0, 101: 0.0}, "a sample of nothing is no work"


def test_of_a_time_in_which_nobody_looked_nothing_is_concluded():
    nvml, hand = FakeNvml(), Hand()
    gpus = NvmlGpus(nvml, hand)
    idle(gpus)
    hand.now += 60.0
    assert idle(gpus) == {100: 0.0, 101: 0.0}


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_UNKNOWN])
def test_where_samples_cannot_be_had_nobody_is_called_idle(code):
    nvml, hand = FakeNvml(), Hand()
    gpus = NvmlGpus(nvml, hand)
    idle(gpus)
    nvml.samples_fail = code
    hand.now += 1.0
    assert idle(gpus) == {100: None, 101: None}
    nvml.samples_fail = None
    hand.now += 1.0
    told = {100: 0.0, 101: 0.0} if code == pynvml.NVML_ERROR_UNKNOWN else {100: None, 101: None}
    assert idle(gpus) == told, "after a gap in what was told everybody begins anew"


def test_whether_it_works_is_not_negative_where_it_is_told(inventory):
    assert all((one.idle_seconds or 0.0) >= 0 for one in inventory.processes())
