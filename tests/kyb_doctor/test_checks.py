"""What the doctor makes of what a node has."""

from dataclasses import replace

import pytest

from kyb.doctor import checks
from kyb.doctor.facts import Cgroups, Folder, Gpus, HugePages, Rates, RuntimeConf, Unknown
from kyb.doctor.findings import Grade, fit
from kyb.doctor.supported import GB, GIB, KERNEL_NEEDED, at_least, version

WITHOUT_EPOLL = {name: "m" for name in KERNEL_NEEDED if name != "EPOLL"}
OLD = Gpus(driver="550.90.07", products=("A100",), memory=(80 * GIB,))
WAITS = {"agent_wait": 1.0, "wake_wait": 1.0}
MIDDLE = replace(OLD, driver="570.86.15")


def grades(facts):
    return {one.check: one for one in checks.examine(facts)}


def test_a_node_that_lacks_nothing_is_fit_and_every_check_says_what_it_wants(good):
    found = checks.examine(good)
    assert {one.grade for one in found} == {Grade.OK}
    assert fit(found)
    assert all(one.found and one.wanted and not one.mend for one in found)
    assert len({one.check for one in found}) == len(checks.CHECKS)


@pytest.mark.parametrize(
    ("other", "check", "grade", "said", "mend"),
    [
        ({"gpus": Unknown("NVML not found")}, "driver", Grade.FAULT, "no GPU: NVML", "install"),
        ({"gpus": OLD}, "driver", Grade.FAULT, "550.90.07, 1 x A100", "a newer driver"),
        ({"gpus": MIDDLE}, "driver", Grade.WARNING, "570", "onto the same card only"),
        ({"kernel": "5.4.0-150"}, "kernel", Grade.FAULT, "5.4.0", "a newer kernel"),
        ({"kernel_config": WITHOUT_EPOLL}, "kernel config", Grade.FAULT, "EPOLL", "a kernel with"),
        ({"kernel_config": Unknown("dark")}, "kernel config", Grade.WARNING, "dark", "criu check"),
        ({"criu": Unknown("no criu")}, "CRIU", Grade.FAULT, "no criu", "PATH of containerd"),
        ({"runc": Unknown("no runc")}, "runc", Grade.FAULT, "no runc", "runtime.conf"),
        ({"runc": "1.0.3"}, "runc", Grade.FAULT, "1.0.3", "a newer runc"),
        ({"memory": 256 * GIB}, "RAM", Grade.FAULT, "256 GiB", "more RAM"),
        ({"memory": 320 * GIB}, "RAM", Grade.OK, "320 GiB", ""),
        (
            {"pool": Folder(path="/dev/shm/kyb", kind="tmpfs", size=64 * GIB, free=0)},
            "pool", Grade.FAULT, "tmpfs, 64 GiB", "mount -o remount,size=168G /dev/shm",
        ),
        (
            {"pool": Folder(path="/pool", kind="ext4", size=900 * GIB, free=0)},
            "pool", Grade.FAULT, "/pool: ext4", "mount a tmpfs there",
        ),
        (
            {"huge_pages": HugePages(transparent="madvise", reserved=0)},
            "THP", Grade.WARNING, "madvise", "echo always",
        ),
        (
            {"huge_pages": HugePages(transparent="always", reserved=200 * GIB)},
            "hugepages", Grade.WARNING, "200 GiB reserved", "vm.nr_hugepages",
        ),
        (
            {"bus": Rates(into=12 * GB, out_of=54 * GB)},
            "bus", Grade.WARNING, "12.0 GB/s in, 54.0 GB/s out", "PCIE",
        ),
        ({"bus": Unknown("hung")}, "bus", Grade.UNKNOWN, "not measured: hung", ""),
        (
            {"disk": Rates(into=1.6 * GB, out_of=4 * GB)},
            "disk", Grade.WARNING, "1.6 GB/s write", "--state-dir",
        ),
        ({"disk": Unknown("no room")}, "disk", Grade.UNKNOWN, "no room", "--disk"),
        ({"containerd": Unknown("none runs")}, "containerd", Grade.FAULT, "none runs", "start it"),
        ({"kubelet": Unknown("none runs")}, "kubelet", Grade.FAULT, "none runs", "join"),
        (
            {"runtime_conf": RuntimeConf(path="c", **WAITS, faults=("'sokcet' is ...",))},
            "agent-wait", Grade.FAULT, "'sokcet'", "correct c",
        ),
        ({"foreign_plugins": ("nvidia.com/gpu",)}, "device plugins", Grade.FAULT, "nvidia", "off"),
        ({"foreign_plugins": Unknown("dark")}, "device plugins", Grade.UNKNOWN, "dark", ""),
        ({"cgroups": Cgroups(version=1, freezer=True)}, "cgroups", Grade.WARNING, "v1", "v2"),
        ({"cgroups": Cgroups(version=2, freezer=False)}, "cgroups", Grade.FAULT, "without", "boot"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_how_to_mend_it(a_node, other, check, grade, said, mend):
    one = grades(a_node(**other))[check]
    assert (one.grade, said in one.found, mend in one.mend) == (grade, True, True), one


def test_faults_are_told_all_at_once(a_node):
    found = grades(a_node(kernel="5.4", runc="1.0", foreign_plugins=("nvidia-gpu.sock",)))
    assert {name for name, one in found.items() if one.grade is Grade.FAULT} == {
        "kernel", "runc", "device plugins",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"version": "3.17"}, "3.17"),
        ({"problem": "no aio"}, "no aio"),
    ],
)
def test_a_criu_that_will_not_do_is_a_fault(good, a_node, other, said):
    one = grades(a_node(criu=replace(good.criu, **other)))["CRIU"]
    assert (one.grade, said in one.found) == (Grade.FAULT, True)


def test_a_criu_that_cannot_lock_the_network_is_a_warning(good, a_node):
    one = grades(a_node(criu=replace(good.criu, locks_network=False)))["CRIU"]
    assert one.grade is Grade.WARNING
    assert "iptables" in one.mend


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"handler": None}, "no runtime kybernate"),
        ({"stale": True}, "newer than its process"),
        ({"of_others": False}, "SystemdCgroup is True, but False for runc"),
    ],
)
def test_a_handler_that_is_not_as_it_should_be_is_a_fault(good, a_node, other, said):
    one = grades(a_node(containerd=replace(good.containerd, **other)))["runtime handler"]
    assert (one.grade, said in one.found) == (Grade.FAULT, True)
    assert "restart containerd" in one.mend


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"program": "", "runs": False}, "no BinaryName"),
        ({"runs": False}, "no program that can be run"),
        ({"annotations": ()}, "the annotations none"),
    ],
)
def test_a_handler_that_would_not_work_is_a_fault(good, a_node, other, said):
    handler = replace(good.containerd.handler, **other)
    found = a_node(containerd=replace(good.containerd, handler=handler))
    one = grades(found)["runtime handler"]
    assert (one.grade, said in one.found) == (Grade.FAULT, True)


@pytest.mark.parametrize(
    ("check", "timeout", "grade", "mend"),
    [
        ("agent-wait", 61.0, Grade.OK, ""),
        ("agent-wait", 60.0, Grade.FAULT, "agent-wait = 30"),
        ("wake-wait", 91.0, Grade.OK, ""),
        ("wake-wait", 60.0, Grade.FAULT, "wake-wait = 45"),
    ],
)
def test_nothing_is_waited_for_as_long_as_the_kubelet_is_patient(
    good, a_node, check, timeout, grade, mend
):
    found = a_node(kubelet=replace(good.kubelet, request_timeout=timeout))
    one = grades(found)[check]
    assert one.grade is grade
    assert one.mend.startswith(mend)
    assert bool(one.mend) is bool(mend)


def test_static_pods_on_seats_are_named(good, a_node):
    one = grades(a_node(kubelet=replace(good.kubelet, static_seats=("model.yaml",))))["static pods"]
    assert (one.grade, one.found) == (Grade.FAULT, "model.yaml")


def test_without_a_gpu_the_rest_is_still_told(a_node):
    found = grades(a_node(gpus=Unknown("no NVML"), bus=Unknown("there is no GPU")))
    assert {name for name, one in found.items() if one.grade is Grade.FAULT} == {"driver"}
    assert "no GPU to compare with" in found["RAM"].found
    assert found["bus"].grade is Grade.WARNING


def test_what_could_not_be_seen_is_not_called_well(a_node):
    assert not fit(checks.examine(a_node(disk=Unknown("no room"))))


def test_versions_are_compared_by_their_numbers():
    assert version("v2.3.4-rc.1+k3s1") == (2, 3, 4)
    assert version("nonsense") == ()
    assert at_least("2.10", "2.2")
    assert not at_least("", "1.0")
