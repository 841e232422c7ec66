"""
Others who give out, use or reshape our GPUs are found and said in words.
Faked: the node's files and processes, as a folder; the cards. A real kubelet's book is read from a
golden file, recorded with KYB_RECORD=1 by tests/node/test_parts_that_break.py.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kyb.doctor import supported
from kybernate.api.profiles import made_up_uuid
from kybernate.clients.events import ObjectRef
from kybernate.clients.gpus import Ailment, GpuProcess, InventoryAway, Setup
from kybernate.clients.gpus.listed import ListedGpus
from kybernate.model.gpu import Gpu
from kybernate.model.ids import GpuUuid, NodeName
from kybernate.model.verdict import EventReason
from kybernate.testing.builders import a_gpu
from kybernate.testing.clock import FakeClock
from nodeagent.gpus import coexistence, neighbours
from nodeagent.gpus.cards import Picture
from nodeagent.gpus.coexistence import Aspect, Facts, Stranger
from nodeagent.gpus.neighbours import Neighbours, Surroundings, tell
from nodeagent.truth.books import Deviation

GPUS = (a_gpu(0), a_gpu(1))
UUIDS = [gpu.uuid for gpu in GPUS]


@pytest.mark.parametrize(
    ("facts", "reason", "words"),
    [
        pytest.param(
            Facts(offered={"nvidia.com/gpu": UUIDS}, taken={"nvidia.com/gpu": {"pod-1"}}),
            "ForeignDevicePlugin",
            "gives out GPU 0, 1 as nvidia.com/gpu; 1 pod took some",
            id="foreign-plugin",
        ),
        pytest.param(
            Facts(offered={"nvidia.com/gpu.shared": [f"{UUIDS[1]}::3"]}),
            "ForeignDevicePlugin",
            "gives out GPU 1 as nvidia.com/gpu.shared: whoever",
            id="time-sliced",
        ),
        pytest.param(
            Facts(offered={"nvidia.com/gpu": ["0"]}), "ForeignDevicePlugin", "GPU 0", id="by-index"
        ),
        pytest.param(
            Facts(strangers=[Stranger(gpu=1, pid=n, command="python3") for n in range(1, 7)]),
            "ForeignProcesses",
            "GPU 1 is used by processes of no workload here: python3 (1), python3 (2), "
            "python3 (3), python3 (4) and 2 more",
            id="strangers",
        ),
        pytest.param(
            Facts(strangers=[Stranger(gpu=0, pid=0, command="")]),
            "ForeignProcesses",
            "one unnamed",
            id="unnamed-stranger",
        ),
        pytest.param(
            Facts(default_runtime="nvidia", open_to_environment=True),
            "RuntimeOpensGpus",
            "without a seat",
            id="open-runtime",
        ),
        pytest.param(
            Facts(setups={0: Setup(), 1: Setup(mig=True)}), "MigMode", "GPU 1 is in MIG", id="mig"
        ),
        pytest.param(
            Facts(setups={0: Setup(exclusive=True)}), "ExclusiveComputeMode", "GPU 0", id="mode"
        ),
        pytest.param(
            Facts(missing={"far": [7]}), "CardMissing", "group far lists GPU 7", id="missing"
        ),
        pytest.param(Facts(mps=[7, 8]), "MultiProcessService", "process 7, 8", id="mps"),
        pytest.param(
            Facts(driver="550.90.07"), "DriverTooOld", "550.90.07, needed is 570", id="driver"
        ),
        pytest.param(
            Facts(ailments={1: [Ailment(name="Xid", words="the driver reported Xid 79")]}),
            "Xid",
            "GPU 1: the driver reported Xid 79; it is given to nobody",
            id="xid",
        ),
        pytest.param(
            Facts(deviations=[Deviation(reason="OnAnothersGpu", words="a/b holds 3.0 GiB")]),
            "OnAnothersGpu",
            "3.0 GiB",
            id="books",
        ),
        pytest.param(
            Facts(strangers=[Stranger(gpu=0, pid=9, command="python3", keeps=True)]),
            "ForeignProcesses",
            "python3 (9), which keeps the driver's descriptors of one that is gone",
            id="keeper",
        ),
        pytest.param(
            Facts(cdi_devices=[f"nvidia.com/gpu={UUIDS[0]}"]),
            "CdiSpecOutdated",
            "do not name GPU 1",
            id="cdi",
        ),
    ],
)
def test_what_is_not_well_is_said_with_what_to_do(facts: Facts, reason: str, words: str) -> None:
    (found,) = coexistence.findings(facts, GPUS)
    assert found.reason == reason
    assert words in found.words


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(Facts(), id="nothing-of-nvidias"),
        pytest.param(Facts(offered={"nvidia.com/gpu": ["GPU-elsewhere"]}), id="other-cards"),
        pytest.param(Facts(offered={"example.com/nic": ["eth0"]}), id="other-devices"),
        pytest.param(Facts(default_runtime="nvidia"), id="a-runtime-that-asks-for-seats"),
        pytest.param(Facts(open_to_environment=True), id="only-where-it-is-asked-for"),
        pytest.param(Facts(cdi_devices=["nvidia.com/gpu=all"]), id="cdi-of-all"),
        pytest.param(Facts(driver="580.159.04"), id="a-new-driver"),
        pytest.param(Facts(driver="listed"), id="no-driver"),
        pytest.param(Facts(setups={0: Setup(), 1: Setup()}), id="usual-cards"),
    ],
)
def test_what_does_no_harm_is_not_said(facts: Facts) -> None:
    assert coexistence.findings(facts, GPUS) == ()


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of the node."""

    def write(path: str, text: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    (tmp_path / "proc").mkdir()
    return write


class Cards:
    """What the coordinator sees of the cards; a test changes it."""

    def __init__(self) -> None:
        self.picture: Picture | None = Picture(at=0.0, gpus=GPUS, used={})

    def stranger(self, gpu: Gpu, pid: int) -> None:
        process = GpuProcess(pid=pid, uuid=gpu.uuid, used=1)
        strangers = frozenset({gpu.index})
        self.picture = Picture(
            at=0.0, gpus=GPUS, used={}, strangers=strangers, outsiders=(process,)
        )


@pytest.fixture
def at(node: Callable[..., Path], tmp_path: Path) -> tuple[Surroundings, Cards]:
    cards = Cards()
    surroundings = Surroundings(
        inventory=ListedGpus(GPUS),
        picture=lambda: cards.picture,
        proc=tmp_path / "proc",
        kubelet=tmp_path / "kubelet",
    )
    return surroundings, cards


def _reasons(at: Surroundings) -> list[str]:
    found = neighbours.look(at)
    assert found is not None
    return [one.reason for one in found]


def test_a_real_kubelets_book_is_read_and_our_own_seats_are_left_out() -> None:
    book = Path(__file__).parent / "golden" / "kubelets-book.json"
    assert "kyb.ai/gpu-1x-seat" in book.read_text()
    offered, taken = neighbours.kubelets_book(book)
    assert offered == {"nvidia.com/gpu": {made_up_uuid("seats-1", 0)}}
    assert taken == {}


def test_a_bare_node_is_well(at: tuple[Surroundings, Cards]) -> None:
    assert _reasons(at[0]) == []


def test_everything_is_found_where_it_stands(
    at: tuple[Surroundings, Cards], node: Callable[..., Path]
) -> None:
    surroundings, cards = at
    book = {
        "Data": {
            "PodDeviceEntries": [
                {"PodUID": "u", "ResourceName": "nvidia.com/gpu", "DeviceIDs": {"-1": UUIDS[:1]}},
                {"PodUID": "v", "ResourceName": "kyb.ai/gpu-1x-seat", "DeviceIDs": {}},
            ],
            "RegisteredDevices": {"nvidia.com/gpu": UUIDS, "kyb.ai/gpu-1x-seat": ["G0/0"]},
        },
        "Checksum": 1,
    }
    node("kubelet/device-plugins/kubelet_internal_checkpoint", json.dumps(book))
    plugin = 'plugins."io.containerd.cri.v1.runtime".containerd'
    root = "proc/1/root"
    node(f"{root}/etc/containerd/config.toml", f'[{plugin}]\ndefault_runtime_name = "nvidia"\n')
    node(f"{root}/etc/nvidia-container-runtime/config.toml", "disable-require = false\n")
    node(f"{root}/var/run/cdi/nvidia.yaml", "kind: nvidia.com/gpu\ndevices: [{name: GPU-old}]\n")
    node("proc/70/comm", "nvidia-cuda-mps\n")
    node("proc/71/comm", "python3\n")
    cards.stranger(GPUS[1], 71)
    assert _reasons(surroundings) == [
        "ForeignDevicePlugin",
        "ForeignProcesses",
        "RuntimeOpensGpus",
        "MultiProcessService",
        "CdiSpecOutdated",
    ]


def test_files_that_are_not_what_they_should_be_are_no_facts(
    at: tuple[Surroundings, Cards], node: Callable[..., Path]
) -> None:
    for text in ("", "[", "{}", '{"Data": []}', '{"Data": {"RegisteredDevices": 3}}', "\x00"):
        node("kubelet/device-plugins/kubelet_internal_checkpoint", text)
        node("proc/1/root/etc/containerd/config.toml", text)
        node("proc/1/root/etc/cdi/nvidia.json", text)
        assert _reasons(at[0]) == []


def test_a_driver_that_does_not_answer_is_no_fact(
    at: tuple[Surroundings, Cards], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: ListedGpus) -> dict[GpuUuid, Setup]:
        raise InventoryAway("no driver")

    monkeypatch.setattr(ListedGpus, "setups", away)
    assert _reasons(at[0]) == []


def test_findings_become_conditions_and_are_told_once_and_when_they_are_over(
    at: tuple[Surroundings, Cards],
) -> None:
    surroundings, cards = at
    told: list[str] = []
    clock = FakeClock()

    class Events:
        def record(self, regarding: ObjectRef, reason: EventReason, *said: Any, **_: Any) -> None:
            told.append(f"{regarding.name}: {reason}: {said[-1].split(':')[0]}")

    watch = Neighbours(surroundings, clock, partial(tell, Events(), NodeName("n")))
    assert watch.conditions() == ()
    cards.picture, seen = None, cards.picture
    assert not watch.look()
    cards.picture = seen
    watch.look()
    began = clock.now()
    assert [(one.type, one.holds) for one in watch.conditions()] == [
        ("GpusExclusive", True),
        ("GpusParkable", True),
        ("GpusHealthy", True),
        ("GpusAsBooked", True),
    ]
    clock.advance(60)
    cards.stranger(GPUS[0], 71)
    watch.look()
    watch.look()
    exclusive, parkable, *_ = watch.conditions()
    assert (exclusive.holds, exclusive.reason) == (False, "ForeignProcesses")
    assert (exclusive.since, parkable.since) == (began + 60, began)
    assert exclusive.type == Aspect.EXCLUSIVE
    cards.picture = seen
    watch.look()
    assert all(one.holds for one in watch.conditions())
    assert told == ["n: ProblemFound: ForeignProcesses", "n: ProblemOver: ForeignProcesses"]


def test_the_oldest_driver_is_the_one_that_people_are_told_of() -> None:
    assert supported.DRIVER.oldest == str(coexistence.OLDEST_DRIVER)
