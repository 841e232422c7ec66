"""Which seats there are, which come first, and what a container with one gets."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceplugin import offer
from deviceplugin.offer import Extras, GuestFiles, NotHandedOut
from deviceplugin.process import Process
from deviceplugin.settings import Settings
from kybernate.clients.gpus.choosing import InventorySource
from kybernate.decisions.grouping import groups_of
from kybernate.model.gpu import Gpu, Health, Profile
from kybernate.runtime.clock import SystemClock


def cards(*healths, **more):
    return tuple(
        Gpu(index=i, uuid=f"GPU-{i}", product="P", memory=80, health=health, numa=i % 2, **more)
        for i, health in enumerate(healths or (Health.HEALTHY,) * 4)
    )


def offered(size, seats=3, gpus=None):
    gpus = gpus or cards()
    name = f"kyb.ai/gpu-{size}x-seat"
    profile = Profile(name="p", resource=name, group_size=size, seats_per_group=seats)
    return offer.offers(groups_of([profile], gpus), gpus)[name]


def test_every_seat_is_a_device_with_its_numa_nodes():
    devices = offered(2).devices()
    assert [one.id for one in devices] == [f"{g}/{n}" for g in ("G02", "G13") for n in range(3)]
    assert {one.numa for one in devices[:3]} == {(0,)}


def test_seats_of_a_sick_or_unknown_card_are_there_but_unhealthy():
    gpus = cards(Health.HEALTHY, Health.UNHEALTHY, Health.UNKNOWN)
    assert [one.healthy for one in offered(1, 1, gpus).devices()] == [True, False, False]
    assert not any(one.healthy for one in offered(1, 1, offer.unknown(gpus)).devices())


def test_a_size_without_enough_cards_is_no_resource():
    gpus = cards(Health.HEALTHY)
    profile = Profile(name="p", resource="r", group_size=2, seats_per_group=1)
    assert offer.offers(groups_of([profile], gpus), gpus) == {}


def test_the_emptiest_group_comes_first():
    available = ["G0/2", "G1/0", "G1/1", "G2/0", "G2/1"]
    assert offered(1).prefer(available, [], 1) == ("G1/0",)


def test_a_sick_group_comes_last_however_empty():
    gpus = cards(Health.UNHEALTHY, Health.HEALTHY)
    available = ["G0/0", "G0/1", "G0/2", "G1/2"]
    assert offered(1, gpus=gpus).prefer(available, [], 2) == ("G1/2", "G0/0")


@given(st.data())
def test_a_preference_holds_what_must_be_in_and_only_what_can_be_had(data):
    one = offered(1)
    every = [device.id for device in one.devices()]
    available = data.draw(st.lists(st.sampled_from(every), unique=True, min_size=1))
    must = data.draw(st.lists(st.sampled_from(available), unique=True))
    size = data.draw(st.integers(max(1, len(must)), len(available)))
    chosen = one.prefer(available, must, size)
    assert len(set(chosen)) == len(chosen) == size
    assert set(must) <= set(chosen) <= set(available)


def test_ids_nobody_knows_are_never_preferred():
    assert offered(1).prefer(["G9/0", "nonsense", "G0/0"], [], 1) == ("G0/0",)


def test_a_container_gets_its_cards_and_its_seat():
    given = offered(2).allocate(["G13/2"], Extras())
    assert given.environment == {
        "KYB_GPU_INDICES": "1,3",
        "KYB_GPU_GROUP": "G13",
        "KYB_GPU_SEAT": "seat-2",
        "CUDA_VISIBLE_DEVICES": "GPU-1,GPU-3",
    }
    assert (given.device_nodes, given.mounts, given.cdi_devices) == ((), {}, ())


def test_a_container_gets_what_the_node_has_beside_cards():
    gpus = tuple(
        Gpu(index=i, uuid=f"GPU-{i}", product="P", memory=80, device_nodes=(f"/dev/nvidia{i}",))
        for i in range(2)
    )
    extras = Extras(
        device_nodes=("/dev/nvidiactl",),
        guest=GuestFiles(
            library="/opt/libkybguest.so", preload="/opt/ld.so.preload", socket="/run/g/a.sock"
        ),
        cdi_kind="nvidia.com/gpu",
        simulated_gpu="/run/gpu.sock",
    )
    given = offered(2, gpus=gpus).allocate(["G01/0"], extras)
    assert given.device_nodes == ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl")
    assert given.mounts["/opt/libkybguest.so"] == "/usr/local/lib/kybernate/libkybguest.so"
    assert given.mounts["/opt/ld.so.preload"] == "/etc/ld.so.preload"
    assert given.mounts["/run/g"] == "/run/kyb/guest"
    assert given.environment["KYB_GUEST_SOCKET"] == "/run/kyb/guest/a.sock"
    assert "LD_PRELOAD" not in given.environment  # a user's own stays
    assert given.cdi_devices == ("nvidia.com/gpu=GPU-0", "nvidia.com/gpu=GPU-1")
    assert given.environment["KYB_SIMULATED_GPU"] == "/run/gpu.sock"
    assert given.mounts["/run/gpu.sock.closed"] == "/run/gpu.sock.closed"


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        pytest.param(["G0/0", "G1/0"], "one seat", id="two"),
        pytest.param([], "one seat", id="none"),
        pytest.param(["G9/0"], "no seat", id="no-such-group"),
        pytest.param(["G0/3"], "no seat", id="no-such-number"),
        pytest.param(["zero"], "no seat", id="nonsense"),
        pytest.param(["G1/0"], "unhealthy", id="sick"),
    ],
)
def test_what_cannot_be_had_is_refused_in_words(ids, words):
    gpus = cards(Health.HEALTHY, Health.UNHEALTHY)
    with pytest.raises(NotHandedOut, match=words):
        offered(1, gpus=gpus).allocate(ids, Extras())


def test_the_guest_library_is_given_as_soon_as_it_is_brought(tmp_path):
    profiles = tmp_path / "profiles.yaml"
    one = "{name: one, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 1}"
    profiles.write_text(f"profiles: [{one}]")
    library, socket = tmp_path / "libkybguest.so", tmp_path / "guest" / "agent.sock"
    settings = Settings(
        profiles=profiles,
        inventory=InventorySource.NVML,
        guest_library=library,
        guest_socket=socket,
        control_nodes=(),
    )
    plugin = Process(settings, SystemClock())
    assert plugin._extras().guest is None
    library.touch()
    assert plugin._extras().guest is None  # without its name beside it the loader finds nothing
    (tmp_path / "ld.so.preload").touch()
    assert plugin._extras().guest == GuestFiles(
        library=str(library), preload=str(tmp_path / "ld.so.preload"), socket=str(socket)
    )
    simulated = replace(settings, inventory=InventorySource.SIMULATED)
    assert Process(simulated, SystemClock())._extras().guest is None
