"""
What a process image holds: its processes, their memory maps, open files and environment. Pure.

Called by: `kyb checkpoint inspect`. The files come from outside, by name (`core-7.img`); pages are
asked for by where they are in a file of pages. Rule: the image is a stranger's: counts are bounded,
and what is wrong with it is NotAnImage, in words. docs of the fields: CRIU's images/*.proto.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from kybernate.artifacts import criu
from kybernate.artifacts.criu import Message, NotAnImage

MAX_PROCESSES = 4096
MAX_ROWS = 262_144  # maps, runs of pages or open files of one process
MAX_TEXT = 2 * 1024 * 1024  # bytes of arguments or environment, the kernel's own bound for both
PAGE = 4096

WANTED = re.compile(r"(?:pstree|files|(?:core|ids|mm|pagemap|fdinfo)-\d{1,10})\.img", re.ASCII)
"""The files this is read of, but for those of pages."""

_PRESENT = 1 << 2  # of a run of pages: it is in the file
_KINDS = (
    "unknown", "file", "pipe", "fifo", "inet socket", "unix socket", "eventfd", "epoll", "inotify",
    "signalfd", "packet socket", "terminal", "fanotify", "netlink socket", "namespace", "tun",
    "external", "timerfd", "memfd", "bpf map", "pidfd",
)  # fmt: skip
_PROTECTIONS = ((1, "r"), (2, "w"), (4, "x"))
_SHARED, _ANONYMOUS = 0x01, 0x20

Files = Mapping[str, bytes]
Fetch = Callable[[str, int, int], bytes]
"""Of a file of pages: its name, from where, and how many bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """A row of memory: addresses, `rwx` and shared or private, the file that is mapped and from
    where; no path where it is anonymous."""

    start: int
    end: int
    access: str
    path: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An open file: its descriptor, which kind it is, and its path where it has one."""

    descriptor: int
    kind: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One. `dumped` is bytes of its memory in the image; `arguments` and `environment` are places
    in its memory (start, end)."""

    pid: int
    parent: int
    threads: int
    name: str
    program: str
    maps: tuple[Map, ...]
    open: tuple[Open, ...]
    dumped: int
    arguments: tuple[int, int]
    environment: tuple[int, int]


def processes(files: Files) -> tuple[Process, ...]:
    """All of an image, parents first. Raises NotAnImage."""
    tree = _entries(files, "pstree.img")
    if len(tree) > MAX_PROCESSES:
        raise NotAnImage(f"{len(tree)} processes (at most {MAX_PROCESSES} are read)")
    known = _known(files)
    return tuple(_process(files, Message(entry), known) for entry in tree)


def texts(files: Files, pid: int, place: tuple[int, int], fetch: Fetch) -> tuple[str, ...]:
    """What stands in a process's memory there, cut at zeros: its arguments or environment. A part
    that is not in the image is left out. Raises NotAnImage, and what `fetch` raises."""
    start, end = place
    if not 0 <= end - start <= MAX_TEXT:
        raise NotAnImage(f"process {pid}: {end - start} bytes of text")
    found = b"".join(fetch(name, at, size) for name, at, size in runs(files, pid, start, end))
    parts = (part.decode("utf-8", "replace") for part in found.split(b"\0"))
    return tuple(part for part in parts if part)


def runs(files: Files, pid: int, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Where memory from `start` to `end` is: file of pages, offset, bytes; in its order. Raises
    NotAnImage."""
    pages, mapped = _pagemap(files, pid)
    at, before = 0, 0
    for address, size, present in mapped:
        if address < before:
            raise NotAnImage(f"pagemap-{pid}.img: rows are not in order")
        before = address + size
        if not present:
            continue
        first, last = max(start, address), min(end, before)
        if first < last:
            yield pages, at + first - address, last - first
        at += size


def _process(files: Files, row: Message, known: Mapping[int, tuple[str, str]]) -> Process:
    pid = row.number(1)
    core, memory = Message(_first(files, f"core-{pid}.img")), None
    if f"mm-{pid}.img" in files:  # one that is dead and not waited for has none
        memory = Message(_first(files, f"mm-{pid}.img"))
    task = core.message(3) or Message()
    kobjects = core.message(4) or Message()
    if f"ids-{pid}.img" in files:  # where CRIU keeps them for the first thread of each process
        kobjects = Message(_first(files, f"ids-{pid}.img"))
    dumped = sum(size for _, size, present in _pagemap(files, pid)[1] if present) if memory else 0
    memory = memory or Message()
    return Process(
        pid=pid,
        parent=row.number(2),
        threads=len(row.numbers(5)) or 1,
        name=_text(task, 6),
        program=known.get(memory.number(12), ("", ""))[1],
        maps=tuple(_maps(memory, pid, known)),
        open=tuple(_open(files, kobjects.number(2), known)),
        dumped=dumped,
        arguments=(memory.number(8), memory.number(9)),
        environment=(memory.number(10), memory.number(11)),
    )


def _maps(memory: Message, pid: int, known: Mapping[int, tuple[str, str]]) -> Iterator[Map]:
    rows = memory.blobs(14)
    if len(rows) > MAX_ROWS:
        raise NotAnImage(f"process {pid}: {len(rows)} maps (at most {MAX_ROWS} are read)")
    for row in map(Message, rows):
        protection, flags = row.number(5), row.number(6)
        access = "".join(letter if protection & bit else "-" for bit, letter in _PROTECTIONS)
        anonymous = flags & _ANONYMOUS
        yield Map(
            start=row.number(1),
            end=row.number(2),
            access=access + ("s" if flags & _SHARED else "p"),
            path="" if anonymous else known.get(row.number(4), ("", ""))[1],
            offset=row.number(3),
        )


def _open(files: Files, table: int, known: Mapping[int, tuple[str, str]]) -> Iterator[Open]:
    name = f"fdinfo-{table}.img"
    entries = _entries(files, name) if name in files else []
    if len(entries) > MAX_ROWS:
        raise NotAnImage(f"{name}: {len(entries)} rows (at most {MAX_ROWS} are read)")
    for row in map(Message, entries):
        kind, path = known.get(row.number(1), (_kind(row.number(3)), ""))
        yield Open(descriptor=row.number(4), kind=kind, path=path)


def _known(files: Files) -> dict[int, tuple[str, str]]:
    """Kind and path of every file of the image, by its id."""
    found = {}
    for entry in map(Message, _entries(files, "files.img")):
        regular, unix = entry.message(3), entry.message(16)
        path = _text(regular, 6) if regular else ""
        if unix:
            path = _text(unix, 11).replace("\0", "@")
        found[entry.number(2)] = (_kind(entry.number(1)), path)
    return found


def _kind(number: int) -> str:
    return _KINDS[number] if number < len(_KINDS) else f"kind {number}"


def _pagemap(files: Files, pid: int) -> tuple[str, list[tuple[int, int, bool]]]:
    """The file of pages, and rows: address, bytes, whether they are in it."""
    entries = _entries(files, f"pagemap-{pid}.img")
    if not entries or len(entries) > MAX_ROWS:
        raise NotAnImage(f"pagemap-{pid}.img has {len(entries)} rows")
    rows = []
    for row in map(Message, entries[1:]):
        flags = row.number(4, 0 if row.number(3) else _PRESENT)
        size = (row.number(5) or row.number(2)) * PAGE
        rows.append((row.number(1), size, bool(flags & _PRESENT)))
    return f"pages-{Message(entries[0]).number(1)}.img", rows


def _first(files: Files, name: str) -> bytes:
    entries = _entries(files, name)
    if not entries:
        raise NotAnImage(f"{name} is empty")
    return entries[0]


def _entries(files: Files, name: str) -> list[bytes]:
    if name not in files:
        raise NotAnImage(f"there is no {name}")
    return criu.split(files[name], name)[1]


def _text(message: Message, number: int) -> str:
    found = message.blobs(number)
    return found[-1].decode("utf-8", "replace") if found else ""
