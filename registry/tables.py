"""
The tables, and what keeps the history append-only. Called by: `sql`.

Rule: `history` refuses UPDATE and DELETE in the database itself, also from people with a shell.
Rule: `artifacts` and `copies` follow from it and hold nothing that an artifact does not say, so a
rebuilt registry has the same; `checks` is what only somebody who read every byte knows.
"""

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    event,
)
from sqlalchemy.schema import ExecutableDDLElement

METADATA = MetaData()
# Ordered by their bytes everywhere, as Python orders them: pages follow this order.
_WORD = String().with_variant(String(collation="C"), "postgresql")


def _identity(*, key: bool) -> list[Column[str]]:
    names = ("namespace", "name", "signature")
    return [Column(name, _WORD, primary_key=key, nullable=False) for name in names]


def _place(*, key: bool) -> list[Column[str]]:
    return [Column(name, _WORD, primary_key=key, nullable=False) for name in ("node", "tier")]


META = Table(
    "meta",
    METADATA,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)
HISTORY = Table(
    "history",
    METADATA,
    Column(
        "number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("key", String, nullable=False, unique=True),
    Column("at", Double, nullable=False),
    Column("kind", String, nullable=False),
    *_identity(key=False),
    *_place(key=False),
    Column("detail", Text, nullable=False),
    Column("artifact", Text, nullable=True),  # JSON
    Index("history_by_copy", "namespace", "name", "signature", "node", "tier"),
    Index("history_by_place", "node", "tier"),
    sqlite_autoincrement=True,  # a number is never given twice
)
ARTIFACTS = Table(
    "artifacts",
    METADATA,
    *_identity(key=True),
    Column("format", String, nullable=False),
    Column("workload", String, nullable=False, index=True),
    Column("pod", String, nullable=False),
    Column("node", String, nullable=False),
    Column("sealed_at", Double, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("gold", Boolean, nullable=False),
    Column("boot_bound", Boolean, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("made_in", Text, nullable=False),  # JSON
    Column("labels", Text, nullable=False),  # JSON
)
COPIES = Table(
    "copies",
    METADATA,
    *_identity(key=True),
    *_place(key=True),
    Index("copies_by_place", "node", "tier"),
)
CHECKS = Table(
    "checks",
    METADATA,
    *_identity(key=True),
    *_place(key=True),
    Column("at", Double, nullable=False),
    Column("flaw", Text, nullable=False),
)

_REFUSED = "the history only grows"
_GUARDS = {
    "sqlite": [
        f"""CREATE TRIGGER IF NOT EXISTS history_{verb.lower()} BEFORE {verb} ON history
            BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"""
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        f"""CREATE OR REPLACE FUNCTION history_only_grows() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$""",
        """CREATE OR REPLACE TRIGGER history_only_grows
            BEFORE UPDATE OR DELETE OR TRUNCATE ON history
            FOR EACH STATEMENT EXECUTE FUNCTION history_only_grows()""",
    ],
}


def _guard(statement: str, dialect: str) -> ExecutableDDLElement:
    made = DDL(statement)  # type: ignore[no-untyped-call]  # the library has no types for it
    return made.execute_if(dialect=dialect)


for _dialect, _statements in _GUARDS.items():
    for _statement in _statements:
        event.listen(HISTORY, "after_create", _guard(_statement, _dialect))
