"""What people type for a place or a key, and what it is.

Rule: nothing is made by looking: a store's folder that is not there is made only to be written to.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kyb.faults import fail
from kybernate.artifacts import signing
from kybernate.artifacts.signing import Trusted
from kybernate.ladder import plain
from kybernate.ladder.keyring import KeyRing
from kybernate.runtime.clock import SystemClock
from kybernate.stores import places as stores
from kybernate.stores.nvme import Nvme
from kybernate.stores.places import BadPlace
from kybernate.stores.port import Store
from kybernate.stores.retrying import Retrying

PLACE = "An agent's folder, a store's folder, s3://BUCKET/PREFIX, or peer://HOST:PORT."
STORE = "a store's folder, s3://BUCKET/PREFIX, or peer://HOST:PORT"
Name = Annotated[str, typer.Argument(help="The checkpoint, NAMESPACE/NAME.")]
Keys = Annotated[
    Path, typer.Option(help="Folder with signing.key and trusted.pem (Secret kyb-checkpoint-keys).")
]
Wrapping = Annotated[
    Path, typer.Option(help="Folder with wrapping.key and older *.key: 32 bytes each, in base64.")
]


@dataclass(frozen=True, slots=True)
class Agents:
    """An agent's folder: a store of its own, and what is there of format v0."""

    folder: Path

    @property
    def store(self) -> Store:
        """To be read: what is put there is the agent's to put."""
        return Nvme(self.folder)

    def has_old(self, namespace: str, name: str) -> bool:
        """Whether this one is there in format v0. Raises Unusable."""
        return plain.has(self.folder, namespace, name)


@dataclass(frozen=True, slots=True)
class Stores:
    """A store, and how it was typed."""

    store: Store
    text: str


def place(text: str, *, make: bool = False) -> Agents | Stores:
    """Of what was typed. Ends the command where it is no place, or not there and not to be made."""
    if stores.is_bucket(text) or stores.is_peer(text):
        return Stores(_afar(text), text)
    folder = Path(text)
    if plain.is_agents(folder):
        return Agents(folder)
    if not folder.is_dir() and not make:
        fail(f"{text}: there is no such folder (expected {PLACE[0].lower()}{PLACE[1:-1]})")
    if folder.is_dir() and any(folder.iterdir()) and not _is_store(folder):
        fail(f"{text}: neither an agent's folder nor a store (expected sealed/, or manifests/)")
    return Stores(Nvme(folder), text)


def store(text: str, *, make: bool = False) -> Store:
    """One of format v1. Ends the command where it is an agent's folder."""
    found = place(text, make=make)
    if isinstance(found, Agents):
        fail(f"{text} is an agent's folder (expected {STORE})")
    return found.store


def key(name: str) -> tuple[str, str]:
    """Namespace and name. Ends the command where it is no NAMESPACE/NAME."""
    namespace, slash, rest = name.partition("/")
    if not slash or not namespace or not rest or "/" in rest:
        fail(f"{name!r} is no checkpoint: expected NAMESPACE/NAME")
    return namespace, rest


def trusted(keys: Path) -> Trusted:
    """Public keys of trusted.pem, in a folder or by itself. Ends the command without any."""
    path = keys / "trusted.pem" if keys.is_dir() else keys
    try:
        found = signing.trusted_of(path.read_bytes())
    except (OSError, ValueError) as problem:
        fail(f"{path}: {getattr(problem, 'strerror', None) or problem}")
    if not found:
        fail(f"{path}: no Ed25519 public key in it (expected PEM)")
    return found


def signer(keys: Path) -> Ed25519PrivateKey:
    """signing.key of a folder. Ends the command where there is none."""
    path = keys / "signing.key"
    try:
        return signing.signer_of(path.read_bytes())
    except (OSError, ValueError) as problem:
        fail(f"{path}: {getattr(problem, 'strerror', None) or problem}")


def ring(wrapping: Path) -> KeyRing:
    """Raises BadKeys."""
    return KeyRing.of_folder(wrapping)


def _afar(text: str) -> Store:
    afar = stores.peer if stores.is_peer(text) else stores.store
    try:
        found = afar(text, os.environ)
    except BadPlace as problem:
        fail(str(problem))
    return Retrying(found, SystemClock(), threading.Event())


def _is_store(folder: Path) -> bool:
    ours = {"manifests", "domains", "drafts"}
    return any(one.name in ours for one in folder.iterdir())
