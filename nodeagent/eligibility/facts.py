"""Facts about a workload's processes, from /proc. Called by `reporting`, `mechanisms.real`."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from nodeagent.eligibility.judging import ProcessFacts
from nodeagent.linux import processes

_DRIVER, _LIBRARY, _NCCL = "libcuda.so", "libkybguest", "libnccl"
_NCCL_THREAD = "NCCL "  # its service and progress threads
_VERBS = "/dev/infiniband/uverbs"


def of(pids: Iterable[int], proc: Path = processes.PROC) -> tuple[ProcessFacts, ...]:
    """Those that are there and have something to do with GPUs or NICs."""
    found = (_of(pid, proc) for pid in pids)
    return tuple(one for one in found if one.driver or one.verbs)


def _of(pid: int, proc: Path) -> ProcessFacts:
    maps = _text(proc / str(pid) / "maps")
    nccl = _NCCL in maps
    return ProcessFacts(
        pid=pid,
        command=_text(proc / str(pid) / "comm").strip(),
        driver=_DRIVER in maps,
        library=_LIBRARY in maps,
        nccl=nccl,
        nccl_inside=_DRIVER in maps and not nccl and _has_thread(pid, _NCCL_THREAD, proc),
        verbs=any(name.startswith(_VERBS) for name in open_files(pid, proc)),
    )


def open_files(pid: int, proc: Path = processes.PROC) -> tuple[str, ...]:
    """What its descriptors are of, by their names in its own file system."""
    found = []
    with suppress(OSError):
        for one in (proc / str(pid) / "fd").iterdir():
            with suppress(OSError):
                found.append(str(one.readlink()))
    return tuple(found)


def _has_thread(pid: int, name: str, proc: Path) -> bool:
    with suppress(OSError):
        threads = list((proc / str(pid) / "task").iterdir())
        return any(_text(one / "comm").startswith(name) for one in threads)
    return False


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
