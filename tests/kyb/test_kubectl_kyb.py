"""`kubectl kyb ...` with the real kubectl: the installed plugin, found on PATH."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kybernate.api import gpuworkloads
from kybernate.clients.resources import CHECKPOINTREQUESTS
from kybernate.testing.builders import a_workload
from kybernate.testing.fakehttp import FakeHttp
from kybernate.testing.fakekube import FakeKube

pytestmark = pytest.mark.controlplane

PROGRAMS = Path(sys.executable).parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def kubectl(assets: Mapping[str, Path], kube: FakeKube, tmp_path: Path) -> Run:
    """`kubectl("kyb", "ps")`, of somebody whose kubeconfig leads to the API server in memory."""
    if not (PROGRAMS / "kubectl-kyb").exists():
        pytest.skip("kubectl-kyb is not installed beside this Python")

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        with FakeHttp(kube) as served:
            config = served.kubeconfig(tmp_path / "kubeconfig")
            environment = {
                "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "KUBECONFIG": str(config),
                "COLUMNS": "200",
            }
            return subprocess.run(
                [str(assets["kubectl"]), *words],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

    return run


def test_kubectl_finds_the_plugin_and_it_names_itself_so(kubectl: Run) -> None:
    assert "kubectl-kyb" in kubectl("plugin", "list").stdout
    said = kubectl("kyb", "--help")
    assert said.returncode == 0, said.stderr
    assert "Usage: kubectl kyb [OPTIONS] COMMAND" in said.stdout


def test_workloads_are_listed_and_checkpoints_asked_for(kubectl: Run, kube: FakeKube) -> None:
    kube.seed(gpuworkloads.new_object(a_workload("llama-a")))
    assert "llama-a" in kubectl("kyb", "ps").stdout
    said = kubectl("kyb", "checkpoint", "llama-a", "-n", "default")
    assert said.returncode == 0, said.stderr
    assert kube.list(CHECKPOINTREQUESTS)[0]["spec"]["workload"] == "llama-a"


def test_what_goes_wrong_reaches_the_shell(kubectl: Run) -> None:
    said = kubectl("kyb", "checkpoint", "nobody")
    assert said.returncode == 1
    assert "kyb: no workload default/nobody" in said.stderr
