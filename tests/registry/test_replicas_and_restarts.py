"""Processes of the registry, killed on purpose: nothing that was answered for is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import urllib3

from kybernate.clients.registry import Registry, RegistryAway
from kybernate.model.artifact import Artifact, Kind, Occurrence, Wanted
from testbed import ports, postgres
from testbed.postgres import Postgres

Make = Callable[..., Artifact]
Tell = Callable[..., Occurrence]


class Replica:
    """A registry process on loopback, in plain text."""

    def __init__(self, database: str, folder: Path) -> None:
        self.port, self.metrics = ports.guess(), ports.guess()
        self._log = (folder / f"registry-{self.port}.log").open("wb")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "registry", "--insecure", f"--database={database}",
                f"--listen=127.0.0.1:{self.port}", f"--metrics-listen=127.0.0.1:{self.metrics}",
            ],
            stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def page(self, path: str) -> tuple[int, str]:
        answer = urllib3.request(
            "GET", f"http://127.0.0.1:{self.metrics}{path}", retries=False, timeout=5.0
        )
        return answer.status, answer.data.decode()

    def ready(self) -> bool:
        try:
            return self.page("/readyz")[0] == 200
        except urllib3.exceptions.HTTPError:
            return False

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(30)
        self._log.close()
        return status

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Callable[[str], Replica]]:
    made: list[Replica] = []

    def start(database: str) -> Replica:
        one = Replica(database, tmp_path)
        made.append(one)
        wait(one.ready)
        return one

    yield start
    for one in made:
        one.stop()


def wait(check: Callable[[], object], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, f"not within {within:g} s"
        threading.Event().wait(0.02)


def ask(*replicas: Replica) -> Registry:
    target = "ipv4:" + ",".join(f"127.0.0.1:{one.port}" for one in replicas)
    return Registry(grpc.insecure_channel(target, options=[("grpc.max_reconnect_backoff_ms", 200)]))


def told_until_taken(registry: Registry, one: Occurrence) -> None:
    """As an agent does: the same again until somebody takes it."""

    def taken() -> bool:
        try:
            registry.record([one])
        except RegistryAway:
            return False
        return True

    wait(taken)


def test_when_a_replica_is_killed_another_takes_over_and_nothing_is_lost(
    replica: Callable[[str], Replica], postgres_url: str, artifact: Make, told: Tell
) -> None:
    first, second = replica(postgres_url), replica(postgres_url)
    killed = threading.Event()

    def kill() -> None:
        first.kill()
        killed.set()

    with ask(first, second) as registry:
        epoch = registry.record([]).epoch
        for number in range(60):
            if number == 20:
                threading.Thread(target=kill).start()
            told_until_taken(registry, told(Kind.SEALED, artifact(f"c-{number:02}")))
        assert killed.wait(30)
        assert registry.record([]).epoch == epoch
        names = [row.artifact.identity.name for row in registry.all(Wanted())]
        entries = list(registry.history())
    assert names == [f"c-{number:02}" for number in range(60)]
    assert len(entries) == 60
    assert first.process.poll() == -signal.SIGKILL


def test_a_database_that_goes_makes_it_unready_and_comes_back(
    replica: Callable[[str], Replica], tmp_path: Path, artifact: Make, told: Tell
) -> None:
    problem = postgres.why_not()
    if problem:
        pytest.skip(problem)
    with Postgres.start(tmp_path / "postgres") as database:
        one = replica(database.url)
        with ask(one) as registry:
            registry.record([told(Kind.SEALED, artifact())])
            database.end()
            wait(lambda: not one.ready())
            assert one.page("/healthz")[0] == 200
            with pytest.raises(RegistryAway, match="the database does not answer"):
                registry.list(Wanted())
            database.begin()
            wait(one.ready)
            told_until_taken(registry, told(Kind.VERIFIED, artifact()))
            [row] = registry.list(Wanted()).rows
            assert len(row.checks) == 1
        one.stop()


def test_sqlite_has_one_process_and_outlives_it(
    replica: Callable[[str], Replica], tmp_path: Path, artifact: Make, told: Tell
) -> None:
    database = f"sqlite:///{tmp_path}/deep/registry.db"
    one = replica(database)
    with ask(one) as registry:
        epoch = registry.record([told(Kind.SEALED, artifact())]).epoch
    second = Replica(database, tmp_path)
    assert second.process.wait(60) == 1
    second.stop()
    assert "is another registry's; several replicas need postgresql://" in second.log
    one.kill()
    again = replica(database)
    with ask(again) as registry:
        assert len(registry.list(Wanted()).rows) == 1
        assert registry.record([]).epoch == epoch
    assert again.stop() == 0


def test_what_it_counts_is_in_its_metrics(
    replica: Callable[[str], Replica], artifact: Make, told: Tell
) -> None:
    one = replica("memory:")
    with ask(one) as registry:
        sealed = told(Kind.SEALED, artifact())
        registry.record([sealed])
        registry.record([sealed])
    told_of = one.page("/metrics")[1]
    assert 'kyb_registry_occurrences_total{outcome="written"} 1.0' in told_of
    assert 'kyb_registry_occurrences_total{outcome="known"} 1.0' in told_of


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--insecure", "--database=mysql://x/y"], "database"),
        (["--insecure", "--database=postgresql://kyb:secret@host"], "postgresql://USER@HOST"),
        ([], "tlsDir"),
    ],
)
def test_settings_that_cannot_be_used_are_told_without_a_password(
    arguments: list[str], said: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "registry", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "secret" not in ended.stderr
