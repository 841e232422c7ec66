"""
Checkpoints of format v0 that an agent of before has left: sealed into the store of this one.

Called by: the store, for each that is asked for, and for all of them once the agent has started.
Rule: the plain files go once the checkpoint is there; until then nothing of them is changed.
Each stays the very checkpoint it was: its manifest and signature go along (docs/decisions/0020).
"""

import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from kybernate.artifacts import names
from kybernate.artifacts.faults import Unusable
from kybernate.clients.errors import Refused, Retry
from kybernate.ladder import carrying, plain
from kybernate.ladder.carrying import Authority
from kybernate.ladder.plain import Plain
from kybernate.ladder.progress import Course
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints import surveying
from nodeagent.checkpoints.holdings import Holdings
from nodeagent.checkpoints.plainly import DRAFT, PLAIN
from nodeagent.checkpoints.sealed import Shelf
from nodeagent.checkpoints.space import Space
from nodeagent.disk.durable import sync_folder


class CarriedOver:
    """Thread safe."""

    def __init__(self, folder: Path, shelf: Shelf, space: Space, holdings: Holdings) -> None:
        """Raises OSError."""
        self._folder, self._sealed = folder, folder / plain.SEALED
        self._shelf, self._space, self._holdings = shelf, space, holdings
        self._lock = threading.RLock()
        self._unusable: set[tuple[str, str]] = set()  # not tried again by this agent
        for namespace, name in self.all():
            space.put((namespace, name), surveying.weight(self._root(namespace, name)))

    def all(self) -> tuple[tuple[str, str], ...]:
        """Namespace and name of those that are left."""
        return tuple(self._found())

    def has(self, namespace: str, name: str) -> bool:
        """Whether it is one of those."""
        return self._root(namespace, name).exists()

    def carry_over(self, namespace: str, name: str) -> None:
        """Where it is one of those. What cannot be used is logged and stays."""
        if not self._is_to_come(namespace, name):
            return
        with self._lock:
            if not self._is_to_come(namespace, name):
                return
            log = get_logger(checkpoint=f"{namespace}/{name}")
            try:
                with self._holdings.others():
                    self._carry(namespace, name)
                    self._holdings.look(names.manifest_key(namespace, name))
                log.info("carried over from format v0")
            except (Refused, Retry, OSError) as problem:
                log.error("not carried over from format v0", why=str(problem))
                if isinstance(problem, Unusable):
                    self._unusable.add((namespace, name))
                return
            finally:
                self._space.give_back(self)
                self._holdings.collect()
            self.remove(namespace, name)

    def _is_to_come(self, namespace: str, name: str) -> bool:
        return self.has(namespace, name) and (namespace, name) not in self._unusable

    def remove(self, namespace: str, name: str) -> bool:
        """Its plain files; whether there were some. Raises OSError."""
        names.check_key(namespace, name)
        gone = self._folder / PLAIN / f"{DRAFT}-{uuid.uuid4().hex}"
        try:
            self._root(namespace, name).rename(gone)
        except FileNotFoundError:
            return False
        sync_folder(self._sealed / namespace)
        shutil.rmtree(gone, ignore_errors=True)  # else the next start does it
        self._space.give_back((namespace, name))
        return True

    def _carry(self, namespace: str, name: str) -> None:
        keys = self._shelf.keys
        one: Plain = plain.opened(self._folder, namespace, name, keys.trusted)
        held = self._space.held((namespace, name))
        self._space.give_back((namespace, name))  # for a while it is there twice, of the limit once
        try:
            self._space.hold(self, one.manifest.size)
        finally:
            self._space.put((namespace, name), held)
        ours = Authority(ring=keys.ring(), trusted=keys.trusted, signer=keys.signer)
        course, unsound = Course(self._shelf.clock), self._holdings.doubted
        carrying.carry(one, self._shelf.store, ours, course, unsound)

    def _found(self) -> Iterator[tuple[str, str]]:
        if not self._sealed.is_dir():
            return
        for namespace in sorted(self._sealed.iterdir()):
            if namespace.is_dir() and not namespace.is_symlink():
                for one in sorted(namespace.iterdir()):
                    try:
                        names.check_key(namespace.name, one.name)
                    except Unusable:
                        continue
                    yield namespace.name, one.name

    def _root(self, namespace: str, name: str) -> Path:
        return self._sealed / namespace / name
