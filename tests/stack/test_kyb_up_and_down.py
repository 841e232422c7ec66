"""`kyb up`, `kyb ps` and `kyb down` through the console script, as a person types them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kybernate.clients.kube import Kube
from kybernate.clients.resources import PODS
from testbed import record

pytestmark = [pytest.mark.controlplane, pytest.mark.crash, pytest.mark.timeout(600)]

KYB = Path(sys.executable).parent / "kyb"
SERVE = ["python", "-m", "testbed.models", "serve", "--vram", "4Gi", "--port", "8080"]
Living = Callable[[Path], dict[int, str]]
Eventually = Callable[..., Any]


def kyb(*words: str, **environment: str) -> tuple[int, str]:
    """Exit code, and everything it said."""
    done = subprocess.run(
        [KYB, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=180,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    return done.returncode, done.stdout


def test_up_keeps_a_cluster_and_down_ends_exactly_it(
    assets: object,
    short_folder: Path,
    living: Living,
    eventually: Eventually,
    a_seat_pod: Callable[..., dict[str, Any]],
) -> None:
    work = short_folder / "u"
    bystander = subprocess.Popen(["tail", "-f", "/dev/null"], start_new_session=True)
    try:
        code, said = kyb("up", "--work", str(work))
        assert code == 0, said
        kubeconfig = work / "plane/kubeconfigs/admin.kubeconfig"
        assert f"\n  export KUBECONFIG={kubeconfig}\n" in said
        _up_again_says_so_and_harms_nothing(work, living)
        _a_model_takes_its_turns(kubeconfig, eventually, a_seat_pod("m", SERVE, vram="4Gi"))
        _kill_one(work, "lightnode-node-a")
        assert any("testbed.models" in one for one in living(work).values())
        assert kyb("down", "--work", str(work)) == (0, "down\n")
        assert living(work) == {}
        assert bystander.poll() is None
        _down_again_says_so(work)
    finally:
        kyb("down", "--work", str(work))
        bystander.kill()
        bystander.wait()


def _up_again_says_so_and_harms_nothing(work: Path, living: Living) -> None:
    before = living(work)
    code, said = kyb("up", "--work", str(work))
    assert code == 1
    assert f"already up, in {work}" in said
    assert living(work) == before


def _a_model_takes_its_turns(kubeconfig: Path, eventually: Eventually, pod: dict[str, Any]) -> None:
    cluster = {"KUBECONFIG": str(kubeconfig)}
    assert kyb("ps", **cluster) == (0, "no workloads that ask for a kyb.ai seat\n")
    del pod["spec"]["priorityClassName"]
    kube = Kube.from_kubeconfig(kubeconfig)
    kube.create(PODS, pod)
    kube.close()
    eventually(lambda: _shown(cluster, "m") == "Active")
    for command, state in (("park", "Parked"), ("resume", "Active")):
        code, said = kyb(command, "m", **cluster)
        assert code == 0, said
        eventually(lambda state=state: _shown(cluster, "m") == state)


def _shown(cluster: Mapping[str, str], name: str) -> str:
    """Its state by `kyb ps`."""
    code, said = kyb("ps", **cluster)
    assert code == 0, said
    rows = [line.split() for line in said.splitlines()]
    return next((row[2] for row in rows if row[1] == name), "")


def _kill_one(work: Path, name: str) -> None:
    found = next(one for one in record.read(work / "processes.json") if one.name == name)
    os.kill(found.pid, signal.SIGKILL)


def test_a_folder_too_long_for_sockets_is_refused_in_a_sentence(
    assets: object, short_folder: Path
) -> None:
    work = short_folder / ("long-" * 10)
    code, said = kyb("up", "--work", str(work))
    assert code == 1
    assert f"{work} is too long for unix sockets: " in said
    assert "Traceback" not in said
    assert not work.exists()


def test_down_where_nothing_was_started_says_so(short_folder: Path) -> None:
    _down_again_says_so(short_folder / "nothing")


def _down_again_says_so(work: Path) -> None:
    code, said = kyb("down", "--work", str(work))
    assert code == 1
    assert f"nothing was started in {work}" in said
