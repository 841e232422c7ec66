"""The Dockerfile, as far as it can be read; it is built by `make images`, which takes minutes."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from kyb.nodefiles import command, plan

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "manifests/images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text()
IGNORED = (IMAGES / "Dockerfile.dockerignore").read_text().splitlines()
_USUAL = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
# Shipped in no image: what only development needs.
LEFT_OUT = {"benchmarks"}


def _copied() -> set[str]:
    """What comes from the repository."""
    lines = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return {word for line in lines for word in line.split()}


def test_every_package_of_the_project_is_installed() -> None:
    """`pip install .` takes what is there: what is not copied fails at its first import."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = {one.rstrip("*") for one in found["find"]["include"]}
    assert packages - LEFT_OUT <= _copied()


def test_what_is_copied_is_there_and_not_ignored() -> None:
    for path in _copied():
        assert (ROOT / path).exists(), path
        assert f"!{path}" in IGNORED, path


def test_every_process_of_the_manifests_has_a_target() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    texts = [path.read_text() for path in (ROOT / "manifests/components").rglob("*.yaml")]
    wanted = {name for text in texts for name in re.findall(r"image: kybernate/(\w+):", text)}
    assert wanted
    assert wanted <= targets


def test_what_is_compiled_is_where_install_node_looks_for_it_and_the_agent_too() -> None:
    for name in (command.PROGRAM, command.PLUGIN, command.GUEST):
        assert f"/{name} {command.SHIPPED / name}" in DOCKERFILE
    assert os.access(IMAGES / "of-the-node", os.X_OK)
    agent = (ROOT / "manifests/components/nodeagent/daemonset.yaml").read_text()
    assert f"--criu-plugins={Path(plan.PLUGIN).parent}\n" in agent
    giver = (ROOT / "manifests/components/deviceplugin/daemonset.yaml").read_text()
    assert f"--guest-library={plan.GUEST}\n" in giver


@pytest.mark.parametrize("distribution", ["k3s", "microk8s"])
def test_where_another_path_is_given_it_begins_with_the_images(distribution: str) -> None:
    """The node's own programs stand in for those of the image first, wherever else is looked."""
    given = (ROOT / f"manifests/components/on-{distribution}/nodeagent.yaml").read_text()
    (value,) = re.findall(r"name: PATH\n +value: (\S+)", given)
    base, agent = re.findall(r"^ENV PATH=(\S+?):\$PATH", DOCKERFILE, re.MULTILINE)
    assert value.split(":")[:2] == [agent, base]
    assert set(_USUAL) <= set(value.split(":"))


def test_nothing_is_mounted_over_what_an_image_brings() -> None:
    """As the node's own /opt/kybernate/lib once was, over the Python that was to look at it."""
    brought = re.findall(r"^COPY (?:--\S+ )+\S+ (/\S+)$", DOCKERFILE, re.MULTILINE)
    assert {"/opt/venv", "/usr/local/lib/kybernate/kybernate-runc"} <= set(brought)
    mounted = {
        (path.parent.name, at)
        for path in (ROOT / "manifests/components").rglob("*.yaml")
        for at in re.findall(r"mountPath: ([^,}\s]+)", path.read_text())
    }
    assert mounted
    for part, at in mounted:
        hidden = [one for one in brought if Path(one).is_relative_to(at)]
        inside = [one for one in brought if Path(at).is_relative_to(one)]
        assert not hidden + inside, (part, at)


def test_agent_and_device_plugin_mean_the_same_socket_in_a_folder_of_its_own() -> None:
    """Containers see the folder: nothing else of ours may stand in it."""
    found = [
        re.findall(r"--guest-socket=(\S+)", (ROOT / f"manifests/components/{name}").read_text())
        for name in ("nodeagent/daemonset.yaml", "deviceplugin/daemonset.yaml")
    ]
    assert found == [["/run/kyb/guest/agent.sock"]] * 2


def test_the_kernel_that_fingerprints_is_part_of_the_agents_package() -> None:
    kinds = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "*.ptx" in kinds["package-data"]["*"]
    assert (ROOT / "nodeagent/gpuworker/fingerprint.ptx").exists()
