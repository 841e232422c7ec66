"""
The doctor on nodes made of values and of folders.

Real: every check, every reader of files. Made up: the nodes. What runs on a real node is in
test_on_a_real_node.py.
"""

from dataclasses import replace
from typing import Any

import pytest

from kyb.doctor.facts import (
    Cgroups,
    Containerd,
    Criu,
    Folder,
    Gpus,
    Handler,
    HugePages,
    Kubelet,
    NodeFacts,
    ObjectStore,
    Rates,
    RuntimeConf,
)
from kyb.doctor.supported import GB, GIB, KERNEL_NEEDED, MB

GOOD = NodeFacts(
    gpus=Gpus(driver="580.159.04", products=("H100",) * 2, memory=(80 * GIB,) * 2),
    kernel="6.18.0-1-amd64",
    kernel_config=dict.fromkeys(KERNEL_NEEDED, "y"),
    criu=Criu(path="/usr/sbin/criu", version="4.2.1", problem="", locks_network=True),
    runc="1.3.0",
    memory=512 * GIB,
    pool=Folder(path="/dev/shm/kyb", kind="tmpfs", size=256 * GIB, free=256 * GIB),
    huge_pages=HugePages(transparent="always", reserved=0),
    bus=Rates(into=54 * GB, out_of=55 * GB),
    disk=Rates(into=5 * GB, out_of=6 * GB),
    disk_folder="/var/lib/kyb",
    containerd=Containerd(
        version="2.3.4",
        handler=Handler(
            program="/opt/kybernate/bin/kybernate-runc",
            runs=True,
            annotations=("kyb.ai/*",),
            systemd_cgroup=True,
        ),
        of_others=True,
        imports=("/etc/containerd/conf.d/*.toml",),
        stale=False,
    ),
    kubelet=Kubelet(version="1.36.2", request_timeout=120.0, static_seats=()),
    runtime_conf=RuntimeConf(path="/etc/kyb/runtime.conf", agent_wait=60.0, wake_wait=90.0),
    cgroups=Cgroups(version=2, freezer=True),
    foreign_plugins=(),
    store=ObjectStore(place="s3://models/kyb", keys=2, rates=Rates(into=800 * MB, out_of=900 * MB)),
)


@pytest.fixture
def good() -> NodeFacts:
    """A node that lacks nothing."""
    return GOOD


@pytest.fixture
def a_node() -> Any:
    """`a_node(kernel="5.4")`: the good one, but for that."""
    return lambda **other: replace(GOOD, **other)
