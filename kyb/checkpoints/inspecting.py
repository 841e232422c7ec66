"""`kyb checkpoint inspect`: what a checkpoint is, of what it is made, and what runs in it.

Rule: of a store only the manifest is read unless a wrapping key is given. Rule: no contents are
shown but the words processes were started with, and of those none that may be a secret.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kyb.checkpoints import looking, masking, places
from kyb.checkpoints.looking import Contents, OfAgent, OfStore, Seen
from kyb.checkpoints.places import Agents
from kyb.faults import fail
from kybernate.artifacts.chunks import CHUNK
from kybernate.artifacts.criu import NotAnImage
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.manifest import Chunks, File, Zeros
from kybernate.ladder import plain, reading

console = Console(highlight=False, soft_wrap=True)


class Output(StrEnum):
    """How it is printed."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A checkpoint as it is shown: rows of words, files (path, size, of what), what is in it."""

    first: list[tuple[str, str]]
    facts: Facts
    files: list[tuple[str, int, str]]
    contents: Contents | None


def inspect(  # noqa: PLR0913 - one for each option
    name: places.Name,
    store: Annotated[str, typer.Option("--in", help=places.PLACE)],
    keys: places.Keys,
    wrapping: Annotated[
        Path | None, typer.Option(help="Of a store: folder of wrapping keys, to see processes.")
    ] = None,
    maps: Annotated[bool, typer.Option("--maps", help="Also memory maps.")] = False,
    descriptors: Annotated[bool, typer.Option("--open", help="Also open files.")] = False,
    environment: Annotated[
        bool,
        typer.Option("--environment", help="Also arguments and environment, secrets masked."),
    ] = False,
    output: Annotated[Output, typer.Option("-o", "--output", help="How.")] = Output.TABLE,
) -> None:
    """Show what a checkpoint is, what it was made in, its files, and the processes in it."""
    found = _found(name, store, keys, wrapping)
    try:
        seen = looking.seen(found.contents, words=environment) if found.contents else ()
    except NotAnImage as problem:
        fail(f"{name}: its process image cannot be read: {masking.printable(str(problem))}")
    if output is Output.JSON:
        shown = _as_json(found, seen, maps=maps, descriptors=descriptors, words=environment)
        typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
        return
    _facts(found.facts, found.first)
    _files(found.files)
    if not found.contents:
        console.print("\nprocesses: --wrapping shows them")
    for one in _tables(seen, maps=maps, descriptors=descriptors, words=environment):
        console.print()
        console.print(one)


def _found(name: str, store: str, keys: Path, wrapping: Path | None) -> _Found:
    namespace, short = places.key(name)
    place = places.place(store)
    if isinstance(place, Agents) and place.has_old(namespace, short):
        old = plain.opened(place.folder, namespace, short, places.trusted(keys))
        return _Found(
            first=[("format", "v0"), ("signature", old.signature)],
            facts=old.manifest.facts,
            files=[(file.path, file.size, "") for file in old.manifest.files],
            contents=OfAgent(old),
        )
    opened = reading.opened(place.store, namespace, short, places.trusted(keys))
    manifest = opened.manifest
    contents = None
    if wrapping is not None:
        key = places.ring(wrapping).open(place.store, manifest.domain, manifest.key)
        contents = OfStore(place.store, manifest, key)
    return _Found(
        first=[
            ("format", "v1"),
            ("signature", opened.signature),
            ("domain, key", f"{manifest.domain}, {manifest.key}"),
            ("size", f"{_size(manifest.size)} in {len(manifest.files)} files"),
            ("packs", f"{len(manifest.packs)}, {_size(manifest.packed)}"),
        ],
        facts=manifest.facts,
        files=[(file.path, file.size, _made_of(file)) for file in manifest.files],
        contents=contents,
    )


def _rows(facts: Facts) -> list[tuple[str, str]]:
    made_in = facts.made_in
    return [
        ("workload", facts.workload),
        ("sealed from", f"pod {facts.pod}, container {facts.container}, node {facts.node}"),
        ("sealed at", f"{facts.sealed_at:.0f} s since the epoch"),
        ("gold", "yes" if facts.gold else "no"),
        ("image", made_in.image),
        ("command", " ".join(masking.arguments(made_in.command))),
        ("made in", f"{made_in.architecture}, kernel {made_in.kernel}"),
        ("GPU", f"{made_in.product or 'unknown'}, driver {made_in.driver or 'unknown'}"),
        ("moved out by", made_in.mechanism),
        *((f"card {part.card}", f"{_size(part.size)} in {part.path}") for part in facts.parts),
    ]


def _facts(facts: Facts, first: list[tuple[str, str]]) -> None:
    table = Table(show_header=False, box=None)
    for row in [*first, *_rows(facts)]:
        table.add_row(*map(escape, row))
    console.print(table)


def _files(rows: list[tuple[str, int, str]]) -> None:
    table = Table(box=None)
    table.add_column("file")
    table.add_column("size", justify="right")
    table.add_column("made of")
    for path, size, made_of in rows:
        table.add_row(escape(path), _size(size), made_of)
    console.print(table)


def _tables(seen: tuple[Seen, ...], *, maps: bool, descriptors: bool, words: bool) -> list[Table]:
    """Of processes, then of each what was asked for."""
    tables = [_table(("pid", "parent", "threads", "name", "program", "in memory", "open files"))]
    for each in seen:
        one = each.process
        numbers = [str(one.pid), str(one.parent), str(one.threads)]
        last = [_size(one.dumped), str(len(one.open))]
        tables[0].add_row(*numbers, _text(one.name), _text(one.program), *last)
        if maps:
            tables.append(_table(("maps of", "from", "to", "access", "size", "path")))
            for row in one.maps:
                place = [f"{row.start:x}", f"{row.end:x}", row.access, _size(row.end - row.start)]
                tables[-1].add_row(str(one.pid), *place, _text(row.path))
        if descriptors:
            tables.append(_table(("open in", "descriptor", "kind", "path")))
            for file in one.open:
                tables[-1].add_row(str(one.pid), str(file.descriptor), file.kind, _text(file.path))
        if words:
            tables.append(_table(("words of", "", "")))
            tables[-1].add_row(str(one.pid), "arguments", escape(" ".join(each.arguments)))
            for name, value in each.environment:
                tables[-1].add_row(str(one.pid), escape(name), escape(value))
    return tables if seen else []


def _as_json(
    found: _Found, seen: tuple[Seen, ...], *, maps: bool, descriptors: bool, words: bool
) -> dict[str, Any]:
    shown = {
        **dict([*found.first, *_rows(found.facts)]),
        "files": [{"path": path, "size": size} for path, size, _ in found.files],
    }
    if found.contents:
        shown["processes"] = [
            _process(one, maps=maps, descriptors=descriptors, words=words) for one in seen
        ]
    return shown


def _process(seen: Seen, *, maps: bool, descriptors: bool, words: bool) -> dict[str, Any]:
    one = seen.process
    shown: dict[str, Any] = {
        "pid": one.pid,
        "parent": one.parent,
        "threads": one.threads,
        "name": masking.printable(one.name),
        "program": masking.printable(one.program),
        "inMemoryBytes": one.dumped,
    }
    if maps:
        shown["maps"] = [
            {"start": row.start, "end": row.end, "access": row.access, "offset": row.offset,
             "path": masking.printable(row.path)}
            for row in one.maps
        ]  # fmt: skip
    if descriptors:
        shown["open"] = [
            {"descriptor": row.descriptor, "kind": row.kind, "path": masking.printable(row.path)}
            for row in one.open
        ]
    if words:
        shown |= {"arguments": list(seen.arguments), "environment": dict(seen.environment)}
    return shown


def _table(columns: tuple[str, ...]) -> Table:
    table = Table(box=None)
    for column in columns:
        table.add_column(column)
    return table


def _text(text: str) -> str:
    return escape(masking.printable(text))


def _made_of(file: File) -> str:
    count = sum(piece.count for piece in file.content if isinstance(piece, Chunks))
    zeros = sum(piece.size for piece in file.content if isinstance(piece, Zeros))
    packs = {piece.pack for piece in file.content if isinstance(piece, Chunks)}
    told = [f"{count} chunks of {len(packs)} packs"] if count else []
    return ", ".join([*told, *([f"{_size(zeros)} zeros"] if zeros else [])])


def _size(size: int) -> str:
    return f"{size} B" if size < CHUNK else f"{size / 2**20:.1f} MiB"
