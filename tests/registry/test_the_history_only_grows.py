"""The database itself refuses to change what happened, and what was answered for is on its disk."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from kybernate.model.artifact import Artifact, Kind, Occurrence, Wanted
from registry.catalogue import DatabaseAway, Story
from registry.sql import Sql

CHANGES = ["UPDATE history SET detail = 'x'", "DELETE FROM history"]


@pytest.mark.parametrize("change", CHANGES)
def test_sqlite_refuses_to_change_it(
    tmp_path: Path,
    artifact: Callable[..., Artifact],
    told: Callable[..., Occurrence],
    change: str,
) -> None:
    file = tmp_path / "registry.db"
    catalogue = Sql(make_url(f"sqlite:///{file}"))
    catalogue.record([told(Kind.SEALED, artifact())])
    catalogue.close()
    with sqlite3.connect(file) as shell, pytest.raises(sqlite3.Error, match="only grows"):
        shell.execute(change)
    shell.close()


@pytest.mark.parametrize("change", [*CHANGES, "TRUNCATE history"])
def test_postgresql_refuses_to_change_it(
    postgres_url: str,
    artifact: Callable[..., Artifact],
    told: Callable[..., Occurrence],
    change: str,
) -> None:
    catalogue = Sql(make_url(postgres_url).set(drivername="postgresql+psycopg"))
    catalogue.record([told(Kind.SEALED, artifact())])
    with psycopg.connect(postgres_url) as shell, pytest.raises(psycopg.Error, match="only grows"):
        shell.execute(change.encode())
    assert len(catalogue.history(Story())) == 1
    catalogue.close()


def test_sqlite_writes_as_the_design_says(tmp_path: Path) -> None:
    catalogue = Sql(make_url(f"sqlite:///{tmp_path}/registry.db"))
    with catalogue._reading() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        modes = [driver.execute(f"PRAGMA {of}").fetchone()[0] for of in ("journal_mode",)]
        assert modes == ["wal"]
        assert driver.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    catalogue.close()


_WRITER = """
import sys
from sqlalchemy import make_url
from kybernate.model.artifact import Artifact, Identity, Kind, Occurrence, Place
from kybernate.model.tier import Tier
from registry.sql import Sql
catalogue, number = Sql(make_url(sys.argv[1])), 0
while True:
    number += 1
    who = Identity(namespace="default", name=f"c-{number}", signature=f"ed25519:aa:{number}")
    one = Artifact(identity=who, format="v0", workload="w", pod="p", node="a",
                   sealed_at=1.0, size=1)
    catalogue.record([Occurrence(key=f"k{number}", at=1.0, kind=Kind.SEALED, identity=who,
                                 place=Place(node="a", tier=Tier.NVME), artifact=one)])
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_all_that_it_answered_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, url], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    answered = [int(next(writer.stdout)) for _ in range(20)]
    os.kill(writer.pid, signal.SIGKILL)
    answered += [int(line) for line in writer.stdout]
    writer.wait(30)
    writer.stdout.close()
    catalogue = Sql(make_url(url))
    rows, entries = catalogue.rows(Wanted(), limit=10_000), catalogue.history(Story(), 0, 10_000)
    catalogue.close()
    assert len(rows) == len(entries) >= answered[-1]
    names = {row.artifact.identity.name for row in rows}
    assert names == {entry.occurrence.identity.name for entry in entries}


def test_a_database_that_is_away_is_said_and_used_again(
    tmp_path: Path, artifact: Callable[..., Artifact], told: Callable[..., Occurrence]
) -> None:
    """The folder of the file comes later, as a volume that was mounted late."""
    catalogue = Sql(make_url(f"sqlite:///{tmp_path}/late/registry.db"))
    with pytest.raises(DatabaseAway, match="unable to open"):
        catalogue.record([told(Kind.SEALED, artifact())])
    (tmp_path / "late").mkdir()
    assert catalogue.record([told(Kind.SEALED, artifact())]) == 1
    catalogue.close()
