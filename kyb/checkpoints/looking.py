"""
The process image in a checkpoint, of either format, read as far as it is shown.

Called by: `inspecting`. Rule: nothing is shown whose digest, or whose chunks, were not checked; of
an agent's folder that takes a pass over every file of pages. Rule: an image is a stranger's: its
small files are bounded, and what is wrong with it is said in a sentence.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from kyb.checkpoints import masking
from kybernate.artifacts import processes as images
from kybernate.artifacts.chunks import DomainKey
from kybernate.artifacts.criu import NotAnImage
from kybernate.artifacts.manifest import Manifest
from kybernate.artifacts.processes import Process
from kybernate.ladder import reading
from kybernate.ladder.plain import Plain
from kybernate.stores.port import Store

MAX_FILE = 64 * 1024 * 1024  # bytes of one of an image's files, those of pages aside
MAX_FILES = 256 * 1024 * 1024  # bytes of all of them

Range = tuple[int, int]
"""From where, and how many bytes."""


class Contents(Protocol):
    """A checkpoint's files. Both methods raise Unusable, and what the place raises."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file, by its path."""

    def whole(self, path: str) -> bytes:
        """A file."""

    def parts(self, path: str, ranges: Iterable[Range]) -> dict[Range, bytes]:
        """Of a file."""


class OfAgent:
    """See `Contents`: format v0."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._files = {file.path: file for file in plain.manifest.files}

    @property
    def sizes(self) -> Mapping[str, int]:
        """As said there."""
        return {path: file.size for path, file in self._files.items()}

    def whole(self, path: str) -> bytes:
        """As said there."""
        return b"".join(self._plain.read(self._files[path]))

    def parts(self, path: str, ranges: Iterable[Range]) -> dict[Range, bytes]:
        """As said there, in one pass over the file, to the end of which nothing is believed."""
        found = {one: bytearray() for one in ranges}
        at = 0
        for chunk in self._plain.read(self._files[path]):
            for (begin, size), content in found.items():
                content += chunk[max(0, begin - at) : max(0, begin + size - at)]
            at += len(chunk)
        return {one: bytes(content) for one, content in found.items()}


@dataclass
class OfStore:
    """See `Contents`: format v1."""

    store: Store
    manifest: Manifest
    key: DomainKey

    def __post_init__(self) -> None:
        self._files = {file.path: file for file in self.manifest.files}

    @property
    def sizes(self) -> Mapping[str, int]:
        """As said there."""
        return {path: file.size for path, file in self._files.items()}

    def whole(self, path: str) -> bytes:
        """As said there."""
        file = self._files[path]
        return b"".join(reading.stream(self.store, self.manifest, self.key, file))

    def parts(self, path: str, ranges: Iterable[Range]) -> dict[Range, bytes]:
        """As said there; only the chunks they are in are fetched."""
        file = self._files[path]
        return {
            one: reading.piece(self.store, self.manifest, self.key, file, one) for one in ranges
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A process, and its words, masked; none where they were not asked for."""

    process: Process
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def seen(contents: Contents, *, words: bool) -> tuple[Seen, ...]:
    """The processes of a checkpoint, with their words or without; none where it has no process
    image. Raises NotAnImage, Unusable."""
    folder = next(
        (path.rpartition("/")[0] for path in contents.sizes if path.endswith("/pstree.img")), None
    )
    if folder is None:
        return ()
    files = _files(contents, folder)
    found = images.processes(files)
    if not words:
        return tuple(Seen(process=one) for one in found)
    fetch = _fetched(contents, folder, files, found)
    return tuple(_with_words(files, one, fetch) for one in found)


def _with_words(images_of: images.Files, one: Process, fetch: images.Fetch) -> Seen:
    if one.environment == (0, 0):
        return Seen(process=one)
    arguments = images.texts(images_of, one.pid, one.arguments, fetch)
    environment = images.texts(images_of, one.pid, one.environment, fetch)
    return Seen(
        process=one,
        arguments=tuple(masking.arguments(arguments)),
        environment=tuple(map(masking.variable, environment)),
    )


def _files(contents: Contents, folder: str) -> dict[str, bytes]:
    """Raises NotAnImage."""
    names = {path.rpartition("/")[2]: path for path in contents.sizes if _is_in(path, folder)}
    wanted = {name: path for name, path in names.items() if images.WANTED.fullmatch(name)}
    sizes = {name: contents.sizes[path] for name, path in wanted.items()}
    for name, size in sizes.items():
        if size > MAX_FILE:
            raise NotAnImage(f"{name} has {size} bytes (at most {MAX_FILE} are read)")
    if sum(sizes.values()) > MAX_FILES:
        raise NotAnImage(f"{sum(sizes.values())} bytes of image (at most {MAX_FILES} are read)")
    return {name: contents.whole(path) for name, path in wanted.items()}


def _fetched(
    contents: Contents, folder: str, files: images.Files, found: Iterable[Process]
) -> Callable[[str, int, int], bytes]:
    """Every word of every process, each file of pages read once."""
    wanted: dict[str, list[Range]] = defaultdict(list)
    for one in found:
        for start, end in {one.arguments, one.environment} - {(0, 0)}:
            if not 0 <= end - start <= images.MAX_TEXT:
                raise NotAnImage(f"process {one.pid}: {end - start} bytes of text")
            for name, at, size in images.runs(files, one.pid, start, end):
                wanted[name].append((at, size))
    have: dict[str, dict[Range, bytes]] = {}
    for name, ranges in wanted.items():
        path = f"{folder}/{name}"
        if path not in contents.sizes:
            raise NotAnImage(f"there is no {name}")
        have[name] = contents.parts(path, ranges)
    return lambda name, at, size: have[name][at, size]


def _is_in(path: str, folder: str) -> bool:
    return path.rpartition("/")[0] == folder
