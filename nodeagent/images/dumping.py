"""
Making an image: the workload stands, runc and CRIU write it down, and it goes on or stands on.

Called by: `nodeagent.images.runc`.
Rule: it stands for as long as anything is read of it, so that all of an image is of one moment.
Rule: however it ends, the workload stands or runs as before.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from nodeagent.images import criu, facts, fitness, identity, refit, rootfs, volumes, watches, zeros
from nodeagent.images.body import Body
from nodeagent.images.folders import CONFIG, CRIU, OPTIONS, WAKE
from nodeagent.images.port import DumpFailed
from nodeagent.linux import processes
from nodeagent.linux.freezer import Freezing

_FLAGS = ("--leave-running", "--tcp-established", "--ext-unix-sk", "--file-locks")
_OPTIONS = ("link-remap", "skip-in-flight")
_LIMIT_S = 600.0  # 1 GiB takes a second; nothing real takes this


@dataclass(frozen=True, slots=True)
class Tools:
    """What images are made with."""

    freezer: Freezing
    runc: str
    criu: str
    more: tuple[str, ...]  # lines for CRIU's configuration


def dump(tools: Tools, body: Body, into: Path) -> Mapping[str, str]:
    """Into an empty folder; the facts. Raises DumpFailed, BodyGone, and what freezing, trees and
    image files raise, and OSError.
    """
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    watched = watches.options(processes.tree(body.pid), body.rootfs)
    with _standing(tools.freezer, body):
        let_go = _let_go(body)
        _processes(tools, body, into, watched)
        if let_go:  # told to go on, which it has not seen yet; restoring that fails
            for core in (into / CRIU).glob(refit.CORES):
                refit.without_signal(core, signal.SIGCONT)
        found = _files(tools, body, into)
    zeros.take_out(into / CRIU)  # it goes on meanwhile
    return found


@contextmanager
def _standing(freezer: Freezing, body: Body) -> Iterator[None]:
    stood = freezer.frozen(body.pid, body.container_id)
    freezer.freeze(body.pid, body.container_id)
    try:
        yield
    finally:
        if stood:  # CRIU may have let it go, where it failed
            freezer.freeze(body.pid, body.container_id)
        else:
            freezer.thaw(body.pid, body.container_id)


def _processes(tools: Tools, body: Body, into: Path, watched: Sequence[str]) -> None:
    work = into.with_name(f".{into.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        _checkpoint(tools, body, into / CRIU, work, watched)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _checkpoint(tools: Tools, body: Body, image: Path, work: Path, watched: Sequence[str]) -> None:
    chosen = work / OPTIONS
    chosen.write_text(criu.options(tools.criu, *_OPTIONS, *watched, *tools.more))
    if (body.bundle / WAKE / OPTIONS).exists():  # one that was restored: runc has it from us
        shutil.copyfile(chosen, body.bundle / WAKE / OPTIONS)
    paths = [f"--image-path={image}", f"--work-path={work}"]
    argv = [tools.runc, f"--root={body.runc_root}", "checkpoint", *_FLAGS, *paths]
    argv.append(body.container_id)
    code, said = _run(argv, {**os.environ, "CRIU_CONFIG_FILE": str(chosen)})
    if code:
        body.check()  # CRIU has no words for one that was killed meanwhile
        why = criu.sentence(work / "dump.log") or criu.of_runc(said)
        raise DumpFailed(why or f"runc ended with {code} and said nothing")
    with suppress(FileNotFoundError):
        (image / "stats-dump").unlink()  # differs from dump to dump, and nobody reads it


def _files(tools: Tools, body: Body, into: Path) -> Mapping[str, str]:
    """All that is not CRIU's; the facts."""
    config = body.config
    with (into / rootfs.FILE).open("xb") as out:
        rootfs.pack(rootfs.reached(rootfs.upper(body.rootfs)), body.rootfs, out)
    volumes.pack(config, into)
    found = facts.of(body, criu.version(tools.criu))
    written = {facts.FILE: found, identity.FILE: identity.of(config), CONFIG: config}
    for name, content in written.items():
        (into / name).write_bytes(orjson.dumps(content))
    return found


def _let_go(body: Body) -> bool:
    """Undo what a signal stopped, now that the cgroup holds it; whether there was any.

    On v1, CRIU would wait for ever for one that both hold. Where a signal stopped the first
    process, the agent did it, to one that woke and was never resumed.
    """
    stopped = [pid for pid in processes.tree(body.pid) if fitness.is_stopped(pid)]
    if stopped and body.pid not in stopped:
        raise DumpFailed(f"process {stopped[0]} is stopped by a signal")
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return bool(stopped)


def _run(argv: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """A program to its end, and what it said. What stops us does not stop it halfway.

    Raises DumpFailed, and then it has ended, with all that it started.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        raise DumpFailed(f"{argv[0]} cannot be run: {error}") from error
    with process:
        try:
            _, said = process.communicate(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired as late:
            os.killpg(process.pid, signal.SIGKILL)
            raise DumpFailed(f"it took longer than {_LIMIT_S:.0f} s") from late
        return process.returncode, said.strip()
