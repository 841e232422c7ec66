"""`kyb gc --dry-run` prints the controller's plan with its reasons, and deletes nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from cryptography.hazmat.primitives import serialization

from kybernate.api import names, timestamps
from kybernate.artifacts import names as names_of
from kybernate.clients.agents import AgentRefused
from kybernate.clients.copies import Collected
from kybernate.clients.resources import GPUCHECKPOINTS, GPUNODES
from kybernate.stores.nvme import Nvme
from kybernate.testing.artifacts import made
from kybernate.testing.fakekube import FakeKube

Kyb = Callable[..., Result]


def checkpoint(name: str, **kept: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True", "reason": "Sealed"}]
    if kept:
        at = timestamps.rfc3339(1_700_000_000)
        conditions.append({"type": "Kept", "lastTransitionTime": at, **kept})
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuCheckpoint",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"workload": "statefulset.llama.0"},
        "status": {
            "sizeBytes": 3 * 2**30,
            "sealedAt": timestamps.rfc3339(1_700_000_000),
            "conditions": conditions,
        },
    }


def test_it_says_what_goes_what_stays_and_why(kube: FakeKube, kyb: Kyb) -> None:
    kube.seed(
        checkpoint("old", status="False", reason="Replaced", message=""),
        checkpoint("named", status="True", reason="Referenced", message="pod llama-1"),
        checkpoint("fresh"),
    )
    answer = kyb("gc", "--dry-run")
    assert answer.exit_code == 0, answer.output
    lines = {line.split()[1]: line for line in answer.output.splitlines()[1:-1]}
    assert "collect" in lines["old"]
    assert "Replaced" in lines["old"]
    assert "keep" in lines["named"]
    assert "Referenced: pod llama-1" in lines["named"]
    assert "not judged yet" in lines["fresh"]
    assert "1 of 3 go when their grace time is over: 3.0 GiB" in answer.output
    assert len(kube.list(GPUCHECKPOINTS)) == 3


def test_without_dry_run_it_does_nothing_and_says_who_does(kube: FakeKube, kyb: Kyb) -> None:
    kube.seed(checkpoint("old", status="False", reason="Replaced"))
    answer = kyb("gc")
    assert answer.exit_code == 1
    assert "the controller collects by itself" in answer.output
    assert len(kube.list(GPUCHECKPOINTS)) == 1


def test_where_there_are_none_it_says_so(kyb: Kyb) -> None:
    assert "no checkpoints" in kyb("gc", "--dry-run").output


class TestOfAStore:
    """Real: the store's folder, a checkpoint in it, and what is left of another."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        one = made()
        store = Nvme(tmp_path / "store")
        for key, content in one.objects.items():
            store.put(key, content)
        store.put(names_of.pack_key("default", "a" * 64), b"of a checkpoint that is gone")
        pem = one.signer.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (tmp_path / "trusted.pem").write_bytes(pem)
        return tmp_path

    def _gc(self, kyb: Kyb, place: Path, *more: str) -> Result:
        return kyb("gc", "--in", str(place / "store"), "--keys", str(place), *more)

    def test_the_plan_says_what_waits_and_changes_nothing(self, kyb: Kyb, place: Path) -> None:
        before = sorted(place.rglob("*"))
        answer = self._gc(kyb, place, "--dry-run")
        assert answer.exit_code == 0, answer.output
        row = answer.output.splitlines()[1].split()
        assert row[:3] == ["default", "1", "1"]
        assert row[3].startswith(("23h59m", "24h"))
        assert [one for one in sorted(place.rglob("*")) if one.is_file()] == [
            one for one in before if one.is_file()
        ]
        answer = self._gc(kyb, place, "--dry-run", "--grace", "0s")
        assert answer.output.splitlines()[1].split() == ["default", "1", "0", "1", "28", "B"]

    def test_what_no_manifest_names_goes_when_its_grace_time_is_over(
        self, kyb: Kyb, place: Path
    ) -> None:
        store = Nvme(place / "store")
        packs = {one.key for one in store.list("domains/default/packs")}
        assert self._gc(kyb, place).output.splitlines()[1].split()[-3:] == ["0", "0", "B"]
        assert {one.key for one in store.list("domains/default/packs")} == packs
        answer = self._gc(kyb, place, "--grace", "0s")
        assert answer.output.splitlines()[1].split()[-3:] == ["1", "28", "B"]
        assert packs - {one.key for one in store.list("domains/default/packs")} == {
            names_of.pack_key("default", "a" * 64)
        }

    def test_what_cannot_be_believed_is_said_and_nothing_goes(self, kyb: Kyb, place: Path) -> None:
        (place / "store/manifests/default/odd").write_bytes(b"rubbish")
        answer = self._gc(kyb, place, "--grace", "0s")
        assert answer.exit_code == 1
        assert "default is left alone" in answer.output + answer.stderr
        assert len(list(Nvme(place / "store").list("domains/default/packs"))) == 2

    def test_bad_words_are_refused(self, kyb: Kyb, place: Path) -> None:
        for words, said in (
            (["--in", str(place / "store")], "--keys: missing"),
            (["--in", str(place / "store"), "--keys", str(place), "--grace", "5"], "'5': expected"),
            (["--in", str(place / "absent"), "--keys", str(place)], "no such folder"),
        ):
            answer = kyb("gc", *words)
            assert answer.exit_code == 1
            assert said in answer.output + answer.stderr


class Agents:
    """Of each node: what its agent answers. `asked` is how."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float, bool]] = []
        self.found = [Collected(domain="gold.default.llama", named=4, gone=2, size=64 << 20)]

    @contextmanager
    def copies_of(self, _: object, node: str) -> Iterator[Any]:
        def collect(grace: float, *, dry_run: bool) -> Iterator[Collected]:
            self.asked.append((node, grace, dry_run))
            if node == "node-a":
                raise AgentRefused("this agent was given no store")
            yield from self.found

        yield SimpleNamespace(collect=collect)


@pytest.fixture
def agents(kube: FakeKube, monkeypatch: pytest.MonkeyPatch) -> Agents:
    made = Agents()
    monkeypatch.setattr("kybernate.clients.reaching.copies_of", made.copies_of)
    for node in ("node-b", "node-a"):
        kube.seed({"apiVersion": names.API_VERSION, "kind": "GpuNode", "metadata": {"name": node}})
    return made


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_the_clusters_own_store_is_collected_by_the_first_agent_that_can(
    agents: Agents, kyb: Kyb, words: tuple[str, ...]
) -> None:
    answer = kyb("gc", "--in", "cluster", "--grace", "1h", *words)
    assert answer.exit_code == 0, answer.output
    dry = bool(words)
    assert agents.asked == [("node-a", 3600.0, dry), ("node-b", 3600.0, dry)]
    assert ("GOING" in answer.output) is dry
    assert answer.output.splitlines()[1].split() == [
        "gold.default.llama",
        "4",
        "0",
        "2",
        "64",
        "MiB",
    ]


def test_where_no_agent_has_a_store_it_says_what_each_said(
    kube: FakeKube, agents: Agents, kyb: Kyb
) -> None:
    kube.delete(GPUNODES, "node-b")
    answer = kyb("gc", "--in", "cluster")
    assert answer.exit_code == 1
    assert "node-a: this agent was given no store" in answer.output


def test_what_an_agent_leaves_alone_is_said(agents: Agents, kyb: Kyb) -> None:
    agents.found = [Collected(domain="team", alone="manifests/team/x: it is not signed")]
    answer = kyb("gc", "--in", "cluster")
    assert answer.exit_code == 1
    assert "team is left alone: manifests/team/x: it is not signed" in answer.output
