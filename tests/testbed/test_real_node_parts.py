"""What real nodes are made of, without root: addresses, cgroups, images, configuration."""

import io
import json
import os
import socket
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from testbed.node import cgroups, configuration, forwarder, images, machine, network, pythonimage
from testbed.node.cgroups import Hierarchy
from testbed.node.forwarder import Forward
from testbed.node.images import Image
from testbed.node.keeper import State
from testbed.node.network import Block
from testbed.node.spec import NodeSpec, load, save

STATE = State(
    keeper=1,
    first=2,
    cgroup="kyb0-n1",
    address="198.18.1.1",
    pods="198.18.1.0/24",
    interface="kyb0",
    boot_id="b",
)
HYBRID = """\
24 1 0:22 / /proc rw - proc proc rw
30 1 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
32 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 1 0:26 / /elsewhere/cpu rw - cgroup cgroup rw,cpu
"""
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
CONTAINER = "30 23 0:26 /docker/1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"


def test_nodes_of_a_block_have_addresses_that_do_not_overlap() -> None:
    block = Block(3)
    nodes = [block.node(index) for index in range(1, network.NODES + 1)]
    assert all(node.pods.subnet_of(block.network) for node in nodes)
    assert not any(a.pods.overlaps(b.pods) for a in nodes for b in nodes if a is not b)
    assert (block.machine, nodes[0].node) == ("198.18.48.1", "198.18.49.1")
    assert not any(block.machine in {str(ip) for ip in node.pods} for node in nodes)


def test_blocks_that_the_machine_has_routes_to_are_passed_over() -> None:
    routes = ["default", "198.18.0.0/20", "198.18.17.4", "10.0.0.0/8", "fe80::/64"]
    assert next(network.blocks(routes)) == Block(2)
    assert not list(network.blocks(["198.18.0.0/15"]))


def test_a_pods_address_is_as_wide_as_the_link_and_from_its_nodes_range() -> None:
    assert network.pod_range("198.18.1.0/24") == {
        "subnet": "198.18.0.0/20",
        "rangeStart": "198.18.1.2",
        "rangeEnd": "198.18.1.254",
        "gateway": "198.18.1.1",
    }


@pytest.mark.parametrize(
    ("ports", "index"),
    [
        pytest.param([], 1, id="first"),
        pytest.param(["lo", "sw", "n1", "n3"], 2, id="gap"),
        pytest.param([f"n{n}" for n in range(1, 16)], None, id="full"),
    ],
)
def test_a_node_takes_the_first_free_port_of_the_switch(
    ports: list[str], index: int | None
) -> None:
    assert network.free_index(ports) == index


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        pytest.param(
            HYBRID,
            [
                Hierarchy(Path("/sys/fs/cgroup/cpu"), False),
                Hierarchy(Path("/sys/fs/cgroup/systemd"), False),
                Hierarchy(Path("/sys/fs/cgroup/unified"), True),
            ],
            id="hybrid",
        ),
        pytest.param(UNIFIED, [Hierarchy(Path("/sys/fs/cgroup"), True)], id="v2"),
        pytest.param(
            CONTAINER, [Hierarchy(Path("/sys/fs/cgroup/cpu"), False, "/docker/1")], id="container"
        ),
    ],
)
def test_cgroup_hierarchies_are_read_from_the_mounts(
    mounts: str, expected: list[Hierarchy]
) -> None:
    assert cgroups.hierarchies(mounts) == expected


def test_an_empty_cpuset_of_v1_is_filled_from_above(tmp_path: Path) -> None:
    (tmp_path / "cpuset.cpus").write_text("0-3\n")
    (tmp_path / "n1").mkdir()
    (tmp_path / "n1" / "cpuset.cpus").write_text("\n")
    (tmp_path / "n1" / "daemons").mkdir()
    (tmp_path / "n1" / "daemons" / "cpuset.cpus").write_text("\n")
    cgroups.create("n1", [Hierarchy(tmp_path, False)])
    assert (tmp_path / "n1" / "daemons" / "cpuset.cpus").read_text() == "0-3\n"


def test_what_is_frozen_is_thawed_and_cgroups_go_innermost_first(tmp_path: Path) -> None:
    inner = tmp_path / "n1" / "kubepods" / "pod"
    inner.mkdir(parents=True)
    (inner / "freezer.state").write_text("FROZEN")
    cgroups.thaw("n1", [Hierarchy(tmp_path, False)])
    assert (inner / "freezer.state").read_text() == "THAWED"
    (inner / "freezer.state").unlink()  # a real cgroup's files do not keep it from being removed
    assert cgroups.remove("n1", [Hierarchy(tmp_path, False)], within=1.0) == []
    assert not (tmp_path / "n1").exists()
    assert cgroups.remove("n1", [Hierarchy(tmp_path, False)], within=1.0) == []


def test_cgroups_that_would_not_go_are_named(tmp_path: Path) -> None:
    (tmp_path / "n1").mkdir()
    (tmp_path / "n1" / "stuck").touch()
    left = cgroups.remove("n1", [Hierarchy(tmp_path, False)], within=0.05)
    assert left == [tmp_path / "n1"]


def test_the_same_image_has_the_same_bytes_and_holds_what_was_asked(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "data").write_text("d")
    (tmp_path / "tree" / "link").symlink_to("data")
    image = Image(
        tree={"/opt/tree": tmp_path / "tree", "/etc/hello": b"hi", "/bin/sh": "busybox"},
        entrypoint=["/bin/sh"],
        environment={"A": "b"},
    )
    files = [images.write({"kyb.test/x:1": image}, tmp_path / name) for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    index, config, layer = _opened(files[0])
    assert index["manifests"][0]["annotations"] == {"io.containerd.image.name": "kyb.test/x:1"}
    assert config["config"]["Entrypoint"] == ["/bin/sh"]
    assert config["config"]["Env"] == ["A=b"]
    with tarfile.open(fileobj=layer) as entries:
        assert {"opt", "opt/tree", "opt/tree/data", "tmp", "etc/hello"} <= set(entries.getnames())
        assert entries.getmember("bin/sh").linkname == "busybox"
        assert entries.getmember("opt/tree/link").linkname == "data"
        assert entries.getmember("tmp").mode == 0o1777


def test_a_python_image_brings_the_interpreter_its_libraries_and_what_packages_require() -> None:
    tree = pythonimage.image(["urllib3", "flask"], [Path("testbed")]).tree
    site = "/usr/local/lib/packages"
    for needed in (f"{site}/flask/app.py", f"{site}/werkzeug/serving.py", f"{site}/testbed"):
        assert needed in tree
    assert tree["/usr/local/bin/python3"] == Path(sys.executable).resolve()
    assert any(path.startswith("/lib") and "libc.so" in path for path in tree)


def test_containerd_has_a_runtime_for_each_handler_and_passes_our_annotations_on() -> None:
    text = configuration.containerd(
        Path("/node/containerd"),
        Path("/cni"),
        Path("/nets"),
        {"runc": Path("/bin/runc"), "kybernate": Path('/odd "name')},
        "native",
    )
    plugins = tomllib.loads(text)["plugins"]
    runtimes = plugins["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
    assert runtimes["runc"]["options"]["BinaryName"] == "/bin/runc"
    assert runtimes["kybernate"]["options"]["BinaryName"] == '/odd "name'
    assert runtimes["kybernate"]["pod_annotations"] == ["kyb.ai/*"]
    assert plugins["io.containerd.cri.v1.images"]["snapshotter"] == "native"
    assert plugins["io.containerd.cri.v1.runtime"]["restrict_oom_score_adj"] is True


def test_any_field_of_the_kubelets_configuration_can_be_overridden() -> None:
    pair = (Path("/crt"), Path("/key"))
    given = configuration.kubelet(STATE, Path("/ca"), pair, {"runtimeRequestTimeout": "10s"})
    assert given["runtimeRequestTimeout"] == "10s"
    assert (given["cgroupRoot"], given["address"]) == ("/kyb0-n1", "198.18.1.1")
    assert configuration.kubelet(STATE, Path("/ca"), pair, {"address": "x"})["address"] == "x"


def test_a_spec_is_remembered_by_its_work_folder(tmp_path: Path) -> None:
    spec = NodeSpec(
        name="n1",
        runtimes={"kybernate": Path("/k"), "plain": None},
        kubelet={"maxPods": 5},
    )
    save(spec, tmp_path)
    assert load(tmp_path) == spec


def test_a_listening_forwarder_is_told_from_one_that_is_not_there_yet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = Forward("127.0.0.1", server.getsockname()[1], 1)
        assert Forward.parse(str(there)) == there
        assert forwarder.listens(os.getpid(), [there])
    assert not forwarder.listens(os.getpid(), [there])


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        pytest.param(("os.geteuid", lambda: 1000), "real nodes need root", id="no-root"),
        pytest.param(("shutil.which", lambda _: None), "not installed: cc, ip", id="no-tools"),
        pytest.param(
            ("cgroups.here", lambda: cgroups.hierarchies(CONTAINER)),
            "only a part of the cgroups is shown at /sys/fs/cgroup/cpu",
            id="in-a-container",
        ),
        pytest.param(("cgroups.here", list), "no cgroups are mounted", id="no-cgroups"),
    ],
)
def test_a_machine_that_cannot_says_why(
    monkeypatch: pytest.MonkeyPatch, cause: tuple[str, object], reason: str
) -> None:
    monkeypatch.setattr(machine.os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine.shutil, "which", lambda name: name)
    monkeypatch.setattr(machine, "_runs", lambda _: True)
    module, name = cause[0].split(".")
    monkeypatch.setattr(getattr(machine, module), name, cause[1])
    assert reason in (machine.why_not() or "")


def _opened(file: Path) -> tuple[dict, dict, io.BytesIO]:
    """The index, the image's configuration and its layer."""
    with tarfile.open(file) as archive:
        blobs = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}
    index = json.loads(blobs["index.json"])
    manifest = json.loads(blobs[_blob(index["manifests"][0])])
    layer = io.BytesIO(blobs[_blob(manifest["layers"][0])])
    return index, json.loads(blobs[_blob(manifest["config"])]), layer


def _blob(described: dict) -> str:
    return "blobs/" + described["digest"].replace(":", "/")
