"""`kyb checkpoint export`, `import`, `clone` and `rewrap`.

Rule: what is carried was verified before it is signed or put anywhere under our name. Rule: done
again after an interruption, it goes on from what is there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from kyb.checkpoints import places
from kyb.checkpoints.places import Agents
from kyb.faults import fail
from kybernate.artifacts import manifest as manifests
from kybernate.artifacts import names, signing
from kybernate.artifacts.chunks import DomainKey
from kybernate.artifacts.manifest import Manifest
from kybernate.artifacts.signing import Trusted
from kybernate.ladder import carrying, copying, plain, reading
from kybernate.ladder.carrying import Authority
from kybernate.ladder.keyring import KeyRing
from kybernate.ladder.plain import Draft, Plain
from kybernate.ladder.progress import Course, Progress
from kybernate.ladder.publishing import publish
from kybernate.ladder.reading import Opened
from kybernate.ladder.writing import Writing
from kybernate.runtime.clock import SystemClock
from kybernate.stores.port import Store

console = Console(highlight=False, soft_wrap=True)
From = Annotated[str, typer.Option("--from", help=places.PLACE)]
To = Annotated[str, typer.Option("--to", help=places.PLACE)]


def export(
    name: places.Name, source: From, target: To, keys: places.Keys, wrapping: places.Wrapping
) -> None:
    """Carry a checkpoint out: from an agent's folder or a store into a store.

    What it shares with checkpoints that are there is not moved again.
    """
    namespace, short = places.key(name)
    out, ring = places.store(target, make=True), places.ring(wrapping)
    found = places.place(source)
    if isinstance(found, Agents) and found.has_old(namespace, short):
        opened = plain.opened(found.folder, namespace, short, places.trusted(keys))
        with _course(opened.manifest.size) as course:
            written = _sealed(opened, out, ring, keys, course)
    else:
        written = _copied(found.store, out, (namespace, short), places.trusted(keys), (ring, ring))
    console.print(f"{name}: in {target}, {_mib(written)} written")


def import_(  # noqa: PLR0913 - one for each option
    name: places.Name,
    source: From,
    target: To,
    keys: places.Keys,
    wrapping: places.Wrapping,
    signed_by: Annotated[
        Path | None,
        typer.Option(help="Its signers' public keys (PEM), where they are not ours."),
    ] = None,
    wrapped_by: Annotated[
        Path | None,
        typer.Option(help="Folder of its wrapping keys, where they are not ours."),
    ] = None,
) -> None:
    """Carry a checkpoint in: from a store, of this cluster or another, into a store or an agent's
    folder. It is verified with its own keys, then signed and wrapped with ours."""
    namespace, short = places.key(name)
    trusted = places.trusted(signed_by or keys)
    ours, theirs = places.ring(wrapping), places.ring(wrapped_by or wrapping)
    store = places.store(source)
    opened = reading.opened(store, namespace, short, trusted)
    key = theirs.open(store, opened.manifest.domain, opened.manifest.key)
    into = places.place(target, make=True)
    if isinstance(into, Agents):
        _to_agent(store, into, opened.manifest, key, keys)
    else:
        _to_store((store, into.store), opened.manifest, key, ours, keys)
    console.print(f"{name}: in {target}")


def clone(
    name: places.Name,
    called: Annotated[str, typer.Argument(help="The new one, NAMESPACE/NAME.")],
    store: Annotated[str, typer.Option("--in", help=places.PLACE)],
    keys: places.Keys,
    wrapping: places.Wrapping,
) -> None:
    """Have a checkpoint again under another name in its store.

    In its own namespace no contents are written; in another one they are sealed for that.
    """
    (namespace, short), (into, new) = places.key(name), places.key(called)
    names.check_key(into, new)
    where, ring = places.store(store), places.ring(wrapping)
    manifest = reading.opened(where, namespace, short, places.trusted(keys)).manifest
    if any(one.key == names.manifest_key(into, new) for one in where.list(f"manifests/{into}")):
        fail(f"{called} is there already")
    if into == namespace or manifest.domain != namespace:
        ours = _signed(manifest, into, new, keys)
        publish(where, ours.manifest, ours.blob, Course(SystemClock()))
    else:
        key = ring.open(where, manifest.domain, manifest.key)
        with (
            _course(manifest.size) as course,
            Writing(where, into, ring.newest(where, into), course) as out,
        ):
            for file in manifest.files:
                out.add(file.path, reading.stream(where, manifest, key, file))
            out.seal(into, new, manifest.facts, places.signer(keys))
    console.print(f"{called}: a clone of {name}")


def rewrap(
    store: Annotated[str, typer.Option("--in", help=places.PLACE)], wrapping: places.Wrapping
) -> None:
    """After wrapping.key was replaced: wrap every domain key of a store with the new one alone.

    The old one has to be in the folder too, as any other *.key.
    """
    changed = places.ring(wrapping).rewrap(places.store(store))
    console.print(f"{changed} key record{'s' * (changed != 1)} changed")


def _sealed(opened: Plain, out: Store, ring: KeyRing, keys: Path, course: Course) -> int:
    """Of format v0, into a store. How many bytes were put."""
    ours = Authority(ring=ring, trusted=places.trusted(keys), signer=places.signer(keys))
    return carrying.carry(opened, out, ours, course).written


def _copied(
    source: Store,
    target: Store,
    name: tuple[str, str],
    trusted: Trusted,
    rings: tuple[KeyRing, KeyRing],
) -> int:
    """As it is, from store to store."""
    opened = reading.opened(source, *name, trusted)
    manifest = opened.manifest
    key = rings[0].open(source, manifest.domain, manifest.key)
    rings[1].lend(target, manifest.domain, key)
    with _course(manifest.packed) as course:
        return copying.copy(source, target, opened, key, course)


def _to_store(
    stores: tuple[Store, Store], manifest: Manifest, key: DomainKey, ring: KeyRing, keys: Path
) -> None:
    ring.lend(stores[1], manifest.domain, key)
    ours = _signed(manifest, manifest.namespace, manifest.name, keys)
    with _course(manifest.packed) as course:
        copying.copy(*stores, ours, key, course)


def _to_agent(store: Store, into: Agents, manifest: Manifest, key: DomainKey, keys: Path) -> None:
    with (
        _course(manifest.size) as course,
        Draft(into.folder, manifest.namespace, manifest.name) as draft,
    ):
        reading.extract(store, manifest, key, draft.files, course)
        paths = [file.path for file in manifest.files]
        draft.seal(manifest.facts, paths, places.signer(keys))


def _signed(manifest: Manifest, namespace: str, name: str, keys: Path) -> Opened:
    """By us, under this name."""
    renamed = manifests.renamed(manifest, namespace, name)
    blob = signing.signed(manifests.encode(renamed), places.signer(keys))
    return Opened(manifest=renamed, signature="", blob=blob)


@contextmanager
def _course(total: int) -> Iterator[Course]:
    """With a bar at a terminal: bytes, rate, seconds left."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def told(progress: Progress) -> None:
            bar.update(task, completed=progress.done)

        yield Course(SystemClock(), told, total=total)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
