"""`kyb checkpoint inspect`: what a checkpoint is, and of what it is made.

Rule: only the manifest is read, so no wrapping key is needed and no contents are shown.
"""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kyb.checkpoints import places
from kyb.checkpoints.places import Agents
from kybernate.artifacts.chunks import CHUNK
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.manifest import Chunks, File, Zeros
from kybernate.ladder import plain, reading

console = Console(highlight=False, soft_wrap=True)


def inspect(
    name: places.Name,
    store: Annotated[str, typer.Option("--in", help=places.PLACE)],
    keys: places.Keys,
) -> None:
    """Show what a checkpoint is, what it was made in, and its files. No contents are read."""
    namespace, short = places.key(name)
    found = places.place(store)
    if isinstance(found, Agents):
        old = plain.opened(found.folder, namespace, short, places.trusted(keys))
        _facts(old.manifest.facts, [("format", "v0"), ("signature", old.signature)])
        _files([(file.path, file.size, "") for file in old.manifest.files])
        return
    opened = reading.opened(found.store, namespace, short, places.trusted(keys))
    manifest = opened.manifest
    stored = sum(pack.size for pack in manifest.packs)
    _facts(
        manifest.facts,
        [
            ("format", "v1"),
            ("signature", opened.signature),
            ("domain, key", f"{manifest.domain}, {manifest.key}"),
            ("size", f"{_size(manifest.size)} in {len(manifest.files)} files"),
            ("packs", f"{len(manifest.packs)}, {_size(stored)}"),
        ],
    )
    _files([(file.path, file.size, _made_of(file)) for file in manifest.files])


def _facts(facts: Facts, first: list[tuple[str, str]]) -> None:
    made_in = facts.made_in
    rows = [
        *first,
        ("workload", facts.workload),
        ("sealed from", f"pod {facts.pod}, container {facts.container}, node {facts.node}"),
        ("sealed at", f"{facts.sealed_at:.0f} s since the epoch"),
        ("gold", "yes" if facts.gold else "no"),
        ("image", made_in.image),
        ("command", " ".join(made_in.command)),
        ("made in", f"{made_in.architecture}, kernel {made_in.kernel}"),
        ("GPU", f"{made_in.product or 'unknown'}, driver {made_in.driver or 'unknown'}"),
        ("moved out by", made_in.mechanism),
        *((f"card {part.card}", f"{_size(part.size)} in {part.path}") for part in facts.parts),
    ]
    table = Table(show_header=False, box=None)
    for row in rows:
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


def _made_of(file: File) -> str:
    count = sum(piece.count for piece in file.content if isinstance(piece, Chunks))
    zeros = sum(piece.size for piece in file.content if isinstance(piece, Zeros))
    packs = {piece.pack for piece in file.content if isinstance(piece, Chunks)}
    told = [f"{count} chunks of {len(packs)} packs"] if count else []
    return ", ".join([*told, *([f"{_size(zeros)} zeros"] if zeros else [])])


def _size(size: int) -> str:
    return f"{size} B" if size < CHUNK else f"{size / 2**20:.1f} MiB"
