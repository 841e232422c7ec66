"""Agents tell of their checkpoints, catch up, and a registry that was lost is filled again.

Real: stores on disks, the agents' telling, both gRPC services over mutual TLS, `kyb`. Faked: the
API server that `kyb` asks where agents are.
"""

import base64
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from kyb.__main__ import app
from kybernate.api import names
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import Unusable
from kybernate.clients.pb import copies_pb2_grpc
from kybernate.clients.reaching import SERVER
from kybernate.model.artifact import Kind, Wanted
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.ids import NodeName, PodUid
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.registryline import RegistryLine
from kybernate.testing.fakehttp import FakeHttp
from kybernate.testing.fakekube import FakeKube
from nodeagent.checkpoints import registering, rows
from nodeagent.checkpoints.copies import Copies, Means
from nodeagent.checkpoints.registering import Registering
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store
from registry.catalogue import Story
from registry.memory import Memory

MADE_IN = Fingerprint(
    kernel="6.1", architecture="x86_64", boot="b", image="sha256:aa", command=("serve",),
    mechanism="simulated",
)  # fmt: skip


class Node:
    """The checkpoints of one node's agent, and its telling."""

    def __init__(self, name: str, folder: Path, keys: Keys, served: Any) -> None:
        self.name, self._served = NodeName(name), served
        self.store = Store(folder / name, keys, 2**30, spare=0)
        self._line = RegistryLine(
            [served.address], served.identity(names.AGENT_CLIENT, client=True)
        )
        self.reader = rows.of_store(self.store)
        self.telling = Registering(self.name, self.reader, self._line, SystemClock())
        self.store.listener = self.telling.changed
        self._server: grpc.Server | None = None

    def seal(self, name: str, **facts: Any) -> None:
        with self.store.draft("default", name) as draft:
            draft.write("gpu/0", [name.encode() * 1000])
            draft.seal(
                Facts(
                    workload="statefulset.llama.0", pod="llama-0", pod_uid=PodUid("u"),
                    container="model", node=self.name, sealed_at=SystemClock().now(),
                    made_in=MADE_IN, labels={"app": "llama"}, **facts,
                )
            )  # fmt: skip

    def serve(self) -> str:
        """Its Copies service; where."""
        server = grpc.server(futures.ThreadPoolExecutor(4))
        now = SystemClock().now
        unused: Any = None  # only asked what is here
        service = Copies(
            Means(
                inventories=lambda: rows.inventories(self.name, self.reader, now),
                store=unused, peers=unused, claims=unused, publisher=unused, verify=unused,
                objects=unused,
            )
        )  # fmt: skip
        copies_pb2_grpc.add_CopiesServicer_to_server(service, server)
        credentials = self._served.identity(SERVER).grpc_server_credentials()
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        self._server = server
        return f"127.0.0.1:{port}"

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait()
        self.telling.stop()
        self._line.close()


@pytest.fixture
def node(tmp_path: Path, served: Any) -> Iterator[Callable[[str], Node]]:
    keys, made = Keys.own(tmp_path / "keys"), list[Node]()

    def make(name: str = "node-a") -> Node:
        made.append(Node(name, tmp_path, keys, served))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def known(served: Any) -> dict[str, list[str]]:
    """Names, and the nodes with copies."""
    return {
        row.artifact.identity.name: [place.node for place in row.copies]
        for row in served.catalogue.rows(Wanted(), limit=1000)
    }


def kinds(served: Any, name: str = "") -> list[Kind]:
    entries = served.catalogue.history(Story(name=name), limit=1000)
    return [entry.occurrence.kind for entry in entries]


def test_what_happens_to_a_copy_is_told(node: Callable[[str], Node], served: Any) -> None:
    one = node("node-a")
    one.telling.start()
    assert one.telling.flush(60)  # what was there before: nothing
    one.seal("c-1", gold=True)
    one.store.open("default", "c-1")
    [pack] = one.store.peek("default", "c-1").manifest.pack_keys
    one.store.shelf.store.put(pack, b"altered")
    with pytest.raises(Unusable):
        one.store.open("default", "c-1")
    assert one.telling.flush(60)
    assert kinds(served) == [Kind.SEALED, Kind.VERIFIED, Kind.DAMAGED]
    [row] = served.catalogue.rows(Wanted())
    [check] = row.checks.values()
    assert "a pack of its contents is not what was sealed" in check.flaw
    one.store.delete("default", "c-1")
    assert one.telling.flush(60)
    assert kinds(served)[-1] is Kind.REMOVED
    assert known(served) == {}


def test_agents_work_on_while_the_registry_is_away_and_catch_up(
    node: Callable[[str], Node], served: Any
) -> None:
    served.stop()
    one = node("node-a")
    one.telling.start()
    for number in range(5):
        one.seal(f"c-{number}")
    one.store.delete("default", "c-2")
    assert not one.telling.flush(0.2)
    served.start()
    assert one.telling.flush(60)
    assert known(served) == {f"c-{number}": ["node-a"] for number in (0, 1, 3, 4)}


def test_what_does_not_fit_into_the_queue_is_made_up_for(
    node: Callable[[str], Node], served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registering, "MOST", 3)
    served.stop()
    one = node("node-a")
    one.telling.start()
    for number in range(10):
        one.seal(f"c-{number}")
    served.start()
    assert one.telling.flush(60)
    assert set(known(served)) == {f"c-{number}" for number in range(10)}


def test_what_was_not_told_before_an_agent_ended_is_told_after_its_start(
    node: Callable[[str], Node], served: Any
) -> None:
    one = node("node-a")
    one.telling.start()
    one.seal("c-1")
    assert one.telling.flush(60)
    one.store.listener = lambda _: None  # it died before it could tell
    one.store.delete("default", "c-1")
    one.seal("c-2")
    again = Registering(one.name, one.reader, one._line, SystemClock())
    again.start()
    assert again.flush(60)
    again.stop()
    assert known(served) == {"c-2": ["node-a"]}


def test_a_registry_lost_while_checkpoints_are_made_is_filled_by_those_who_tell(
    node: Callable[[str], Node], served: Any
) -> None:
    one, two = node("node-a"), node("node-b")
    for each in (one, two):
        each.telling.start()
    for number in range(12):
        if number == 6:
            served.stop()
            served.start(Memory())
        (one if number % 2 else two).seal(f"c-{number:02}")
    assert one.telling.flush(60)
    assert two.telling.flush(60)
    assert known(served) == {
        f"c-{number:02}": ["node-a" if number % 2 else "node-b"] for number in range(12)
    }


@pytest.fixture
def cluster(served: Any, tmp_path: Path) -> Iterator[tuple[FakeKube, Callable[..., Any]]]:
    """An API server that knows the agents, and `kyb registry`."""
    tls = served.identity(names.CLIENT, client=True)
    data = {
        name: base64.b64encode((tls.folder / name).read_bytes()).decode()
        for name in ("tls.crt", "tls.key", "ca.crt")
    }
    secret = {
        "apiVersion": "v1", "kind": "Secret", "data": data,
        "metadata": {"namespace": names.SYSTEM_NAMESPACE, "name": "kyb-client-tls"},
    }  # fmt: skip
    kube = FakeKube(secret)
    with FakeHttp(kube) as http:
        config = http.kubeconfig(tmp_path / "kubeconfig")

        def run(*words: str) -> Any:
            known = {
                "COLUMNS": "200", "KUBECONFIG": str(config), "KYB_REGISTRY": served.address,
            }  # fmt: skip
            return CliRunner().invoke(app, ["registry", *words], env=known)

        yield kube, run


def gpunode(name: str, endpoint: str) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION, "kind": "GpuNode", "metadata": {"name": name},
        "spec": {}, "status": {"endpoint": endpoint},
    }  # fmt: skip


def test_a_rebuilt_registry_has_the_same_rows(
    node: Callable[[str], Node], served: Any, cluster: Any
) -> None:
    kube, kyb = cluster
    one, two = node("node-a"), node("node-b")
    for each in (one, two):
        kube.seed(gpunode(each.name, each.serve()))
        each.telling.start()
    one.seal("c-1", gold=True)
    one.seal("c-2", boot_bound=True)
    two.seal("c-3")
    assert one.telling.flush(60)
    assert two.telling.flush(60)
    before = served.catalogue.rows(Wanted())
    assert len(before) == 3

    lost = Memory()
    served.stop()
    served.start(lost)
    answer = kyb("rebuild")
    assert answer.exit_code == 0, answer.output
    assert "node-a: 2 in nvme, 2 new, 0 gone" in answer.output
    assert lost.rows(Wanted()) == before
    again = kyb("rebuild")
    assert "node-a: 2 in nvme, 0 new, 0 gone" in again.output
    assert len(lost.history(Story())) == 3


def test_nodes_that_do_not_answer_are_named_and_gone_ones_can_be_forgotten(
    node: Callable[[str], Node], served: Any, cluster: Any
) -> None:
    kube, kyb = cluster
    one, gone = node("node-a"), node("node-gone")
    kube.seed(gpunode("node-a", one.serve()), gpunode("node-mute", ""))
    gone.telling.start()
    gone.seal("c-old")
    one.seal("c-1")
    assert gone.telling.flush(60)
    answer = kyb("rebuild")
    assert answer.exit_code == 1
    assert "node-mute: not asked: the agent of node-mute does not say" in answer.output
    assert "node-gone: no GpuNode; its copies are still listed" in answer.output
    assert known(served) == {"c-1": ["node-a"], "c-old": ["node-gone"]}
    assert kyb("rebuild", "--forget", "node-a").exit_code == 1
    kyb("rebuild", "--forget", "node-gone")
    assert known(served) == {"c-1": ["node-a"]}


def test_people_see_what_there_is_and_what_happened(
    node: Callable[[str], Node], served: Any, cluster: Any
) -> None:
    _, kyb = cluster
    assert "no checkpoints" in kyb("list").output
    one = node("node-a")
    one.telling.start()
    one.seal("c-1", gold=True)
    one.store.open("default", "c-1")
    assert one.telling.flush(60)
    listed = kyb("list", "--node", "node-a", "--gold").output
    assert "c-1" in listed
    assert "node-a (nvme)" in listed
    shown = kyb("get", "c-1").output
    assert "every byte as sealed" in shown
    assert "statefulset.llama.0 (pod llama-0, sealed on node-a)" in shown
    told = kyb("history", "default/c-1").output.splitlines()
    assert [line.split()[1] for line in told] == ["sealed", "verified"]
    missing = kyb("get", "c-9")
    assert missing.exit_code == 1
    assert "no copy of default/c-9 is known" in missing.output
