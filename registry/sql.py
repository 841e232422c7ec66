"""
A catalogue in SQLite or PostgreSQL.

Called by: `process`. Rule: one occurrence or inventory is one transaction with what follows from
it, and it is on the disk when it ends (SQLite: WAL, synchronous=FULL; PostgreSQL: its own default).
Rule: writers of PostgreSQL take turns, so that numbers of the history become visible in order.
Rule: a file of SQLite has one process; another one is refused at its start.
"""

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    create_engine,
    delete,
    event,
    exists,
    func,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from kybernate.model.artifact import (
    COMES,
    GOES,
    Artifact,
    Entry,
    Identity,
    Inventory,
    Kind,
    Occurrence,
    Place,
    Row,
    Wanted,
)
from registry import inventories, records
from registry.catalogue import DatabaseAway, Story
from registry.tables import ARTIFACTS, CHECKS, COPIES, HISTORY, META, METADATA

_TURN = 0x6B7962  # of PostgreSQL's advisory lock: any number that nobody else uses
_CONNECT_S = 5
_BUSY_MS = 10_000
_EPOCH = "epoch"
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"

Condition = ColumnElement[bool]


class Sql:
    """Implements `Catalogue`. Tables are made at the first call that gets through."""

    def __init__(self, url: URL) -> None:
        """Nothing is asked yet."""
        self._engine = _engine(url)
        self._turn = threading.Lock()
        self._made = False

    def epoch(self) -> str:
        """As the port says. Read anew: the database may have been put back from a backup."""
        with self._reading() as connection:
            found = connection.execute(select(META.c.value).where(META.c.name == _EPOCH))
            return str(found.scalar_one())

    def record(self, occurrences: Sequence[Occurrence]) -> int:
        """As the port says."""
        with self._writing() as connection:
            return sum(_write(connection, one) for one in occurrences)

    def take_inventory(self, inventory: Inventory) -> tuple[int, int]:
        """As the port says."""
        with self._writing() as connection:
            known = _identities(connection, COPIES, inventory.place)
            told = _told_at(connection, inventory.place)
            new = [
                one
                for one in inventories.differences(inventory, known, told)
                if _write(connection, one)
            ]
        found = sum(one.kind is Kind.FOUND for one in new)
        return found, len(new) - found

    def rows(
        self, wanted: Wanted, after: Identity | None = None, limit: int = 100
    ) -> tuple[Row, ...]:
        """As the port says."""
        asked = select(ARTIFACTS).where(*_conditions(wanted, after))
        with self._reading() as connection:
            found = [
                records.read_artifact(row)
                for row in connection.execute(asked.order_by(*_key(ARTIFACTS)).limit(limit))
            ]
            return tuple(_rows(connection, found))

    def history(self, story: Story, after: int = 0, limit: int = 100) -> tuple[Entry, ...]:
        """As the port says."""
        columns = HISTORY.c
        conditions: list[Condition] = [columns.number > after]
        if story.namespace:
            conditions.append(columns.namespace == story.namespace)
        if story.name:
            conditions.append(columns.name == story.name)
        if story.node is not None:
            conditions.append(columns.node == story.node)
        asked = select(HISTORY).where(*conditions).order_by(columns.number).limit(limit)
        with self._reading() as connection:
            return tuple(records.read_entry(row) for row in connection.execute(asked))

    def close(self) -> None:
        """As the port says."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One writer at a time. Raises DatabaseAway."""
        with self._turn, self._watched(), self._engine.begin() as connection:
            _take_turn(connection)
            self._make(connection)
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """What is committed, at one moment. Raises DatabaseAway."""
        if not self._made:
            with self._writing():
                pass
        with self._watched(), self._engine.begin() as connection:
            on_postgresql = connection.dialect.name == "postgresql"
            connection.execute(text(_SNAPSHOT if on_postgresql else "BEGIN"))
            yield connection

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """The driver's errors become ours, and the tables are looked for again after one."""
        try:
            yield
        except SQLAlchemyError as error:
            self._made = False
            said = error.orig if isinstance(error, DBAPIError) else error
            raise DatabaseAway(str(said).strip()) from error

    def _make(self, connection: Connection) -> None:
        if not self._made:
            METADATA.create_all(connection)
            epoch = _insert(connection, META).values(name=_EPOCH, value=uuid.uuid4().hex)
            connection.execute(epoch.on_conflict_do_nothing())
            self._made = True


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        told = {"connect_timeout": _CONNECT_S, "application_name": "kyb-registry"}
        return create_engine(url, connect_args=told, pool_pre_ping=True, pool_timeout=_CONNECT_S)
    engine = create_engine(url, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    """Of every connection to SQLite. Transactions are begun by us, not by the driver."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _take_turn(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_TURN)))
    else:
        connection.execute(text("BEGIN IMMEDIATE"))


def _write(connection: Connection, one: Occurrence) -> bool:
    """Whether it was new."""
    written = connection.execute(
        _insert(connection, HISTORY)
        .values(records.write_occurrence(one))
        .on_conflict_do_nothing(index_elements=["key"])
        .returning(HISTORY.c.number)
    )
    if written.scalar_one_or_none() is None:
        return False
    _apply(connection, one)
    return True


def _apply(connection: Connection, one: Occurrence) -> None:
    identity, place = records.write_identity(one.identity), records.write_place(one.place)
    here = (*_is(COPIES, identity), *_is(COPIES, place))
    if one.kind in COMES and one.artifact is not None:
        _put(connection, ARTIFACTS, records.write_artifact(one.artifact))
        _put(connection, COPIES, {**identity, **place})
        connection.execute(delete(CHECKS).where(*_is(CHECKS, identity), *_is(CHECKS, place)))
    elif one.kind in GOES:
        connection.execute(delete(COPIES).where(*here))
        connection.execute(delete(CHECKS).where(*_is(CHECKS, identity), *_is(CHECKS, place)))
        other = exists().where(*_is(COPIES, identity))
        connection.execute(delete(ARTIFACTS).where(*_is(ARTIFACTS, identity), ~other))
    elif connection.execute(select(COPIES.c.node).where(*here)).first() is not None:
        flaw = one.detail or str(one.kind) if one.kind is Kind.DAMAGED else ""
        _put(connection, CHECKS, {**identity, **place, "at": one.at, "flaw": flaw})


def _put(connection: Connection, table: Table, values: dict[str, Any]) -> None:
    """Insert, or replace what has this key."""
    key = [column.name for column in table.primary_key]
    rest = {name: value for name, value in values.items() if name not in key}
    insert = _insert(connection, table).values(values)
    if rest:
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=rest))
    else:
        connection.execute(insert.on_conflict_do_nothing(index_elements=key))


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _identities(connection: Connection, table: Table, place: Place) -> list[Identity]:
    asked = select(*_key(table)).where(*_is(table, records.write_place(place)))
    return [records.read_identity(row) for row in connection.execute(asked)]


def _told_at(connection: Connection, place: Place) -> dict[Identity, float]:
    asked: Select[Any] = (
        select(*_key(HISTORY), func.max(HISTORY.c.at).label("at"))
        .where(*_is(HISTORY, records.write_place(place)))
        .group_by(*_key(HISTORY))
    )
    return {records.read_identity(row): row.at for row in connection.execute(asked)}


def _conditions(wanted: Wanted, after: Identity | None) -> Iterator[Condition]:
    columns = ARTIFACTS.c
    for name in ("namespace", "name", "workload", "fingerprint"):
        if value := getattr(wanted, name):
            yield columns[name] == value
    if wanted.gold is not None:
        yield columns.gold.is_(wanted.gold)
    if wanted.sealed_from:
        yield columns.sealed_at >= wanted.sealed_from
    if wanted.sealed_until:
        yield columns.sealed_at <= wanted.sealed_until
    if wanted.node is not None or wanted.tier is not None:
        yield _held(wanted)
    if after is not None:
        yield tuple_(*_key(ARTIFACTS)) > tuple_(after.namespace, after.name, after.signature)


def _held(wanted: Wanted) -> Condition:
    same = [COPIES.c[column.name] == column for column in _key(ARTIFACTS)]
    if wanted.node is not None:
        same.append(COPIES.c.node == wanted.node)
    if wanted.tier is not None:
        same.append(COPIES.c.tier == wanted.tier.value)
    return exists().where(*same)


def _rows(connection: Connection, artifacts: Sequence[Artifact]) -> Iterator[Row]:
    ours = [tuple(records.write_identity(one.identity).values()) for one in artifacts]
    copies: dict[Identity, list[Place]] = {one.identity: [] for one in artifacts}
    for row in connection.execute(select(COPIES).where(tuple_(*_key(COPIES)).in_(ours))):
        copies[records.read_identity(row)].append(records.read_place(row))
    checks = {
        (records.read_identity(row), records.read_place(row)): records.read_check(row)
        for row in connection.execute(select(CHECKS).where(tuple_(*_key(CHECKS)).in_(ours)))
    }
    for one in artifacts:
        places = tuple(sorted(copies[one.identity]))
        found = {p: checks[one.identity, p] for p in places if (one.identity, p) in checks}
        yield Row(artifact=one, copies=places, checks=found)


def _key(table: Table) -> tuple[ColumnElement[Any], ...]:
    return tuple(table.c[name] for name in ("namespace", "name", "signature"))


def _is(table: Table, values: dict[str, str]) -> tuple[Condition, ...]:
    return tuple(table.c[name] == value for name, value in values.items())
