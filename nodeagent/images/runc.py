"""
Images by runc and CRIU.

Called by: whoever holds a `ProcessImages`.
An image's folder: `criu/` (what CRIU and runc write), `rootfs.tar` (changes to the root file
system), `volumes/` (what is carried of other mounts), `config.json` (what the container was made
of), `identity.json` (who it was), `image.json` (what it fits).
A restoration's folder, `<bundle>/kyb-wake`, goes with the bundle: `criu/` (links to the image's
files, and our own in place of what must differ), `criu.conf`, `work/` (CRIU's logs), `touched`.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from nodeagent import processes
from nodeagent.freezer import Freezing, NotFrozen, NotThawed
from nodeagent.images import (
    criu,
    facts,
    fitness,
    identity,
    pages,
    refit,
    rootfs,
    tree,
    volumes,
    watches,
    wire,
)
from nodeagent.images.body import CRIU_CONFIG, Body, read_config, write_config
from nodeagent.images.identity import Identity
from nodeagent.images.port import Dumped, DumpFailed, Unfit, Unrestorable

CRIU, WORK = "criu", "work"
WAKE = "kyb-wake"
TOUCHED = "touched"  # in it, once the container's files are changed; kybernate-runc knows it, too
_OPTIONS = "criu.conf"
_DUMP = ("--leave-running", "--tcp-established", "--ext-unix-sk", "--file-locks")
# Options of CRIU's, as runc 1.1 does not know all of its own that later ones have. Cgroups are left
# to the two: runc says where the new ones are, and CRIU restores the namespace of cgroups.
_RESTORE = ("leave-stopped",)
_WORDS_MOST = 2000  # of what changed; a reply's line has 16 KiB
_LIMIT_S = 600.0  # 1 GiB takes a second; nothing real takes this


class RuncImages:
    """A `ProcessImages`."""

    def __init__(
        self,
        freezer: Freezing,
        runc: str = "runc",
        criu_program: str = "criu",
        plugins: Path | None = None,
    ) -> None:
        """Programs by name on PATH, or by path; runc itself looks for `criu` on its PATH.

        `plugins` is the folder with the plugin of native/criu, which closes unix sockets to the
        outside; without it, a workload that has one is unfit.
        """
        self._freezer, self._runc, self._criu = freezer, runc, criu_program
        self._more = (f"libdir {plugins}",) if plugins else ()

    def unfit(self, body: Body) -> tuple[Unfit, ...]:
        """As the port says."""
        body.check()
        return fitness.of(body, plugin=bool(self._more))

    def dump(self, body: Body, into: Path) -> Dumped:
        """As the port says."""
        body.check()
        stood = self._freezer.frozen(body.pid, body.container_id)
        try:
            into.mkdir(mode=0o700, parents=True, exist_ok=True)
            watched = watches.options(processes.tree(body.pid), body.rootfs)
            self._freezer.freeze(body.pid, body.container_id)
            try:
                let_go = _let_go(body)
                found = self._dump(body, into, watched)
                if let_go:  # told to go on, which it has not seen yet; restoring that fails
                    for core in (into / CRIU).glob(refit.CORES):
                        refit.without_signal(core, signal.SIGCONT)
            finally:
                self._as_before(body, stood)
            return Dumped(folder=into, size=_size(into), facts=found)
        except (
            NotFrozen,
            NotThawed,
            tree.BadTree,
            rootfs.NoOverlay,
            wire.NotAnImage,
            OSError,
        ) as error:
            raise DumpFailed(str(error)) from error

    def restoration(self, image: Path, bundle: Path) -> Mapping[str, str]:
        """As the port says."""
        facts.check(image, criu.version(self._criu))
        was, config = read_config(image), dict(read_config(bundle))
        volumes.compare(was, config)
        wake = bundle / WAKE
        try:
            before, now = identity.read(image), identity.of(config)
            _check_untouched(wake, image)
            shutil.rmtree(wake, ignore_errors=True)  # of a try before
            closed = self._images(image, wake, before, now)
            (wake / TOUCHED).write_text(str(image))
            self._files(image, bundle, config)
            tree.put(bundle / "rootfs", identity.TOLD, identity.told(before, now))
            annotations = dict(_mapping(config.get("annotations")))
            config["annotations"] = {**annotations, CRIU_CONFIG: str(wake / _OPTIONS)}
            write_config(bundle, config)
        except (OSError, tree.BadTree, wire.NotAnImage) as error:
            raise Unrestorable(str(error)) from error
        said = [f"connections to the outside that are closed: {closed}"] if closed else []
        changed = "; ".join((*identity.changes(before, now), *said))[:_WORDS_MOST]
        return {"image": str(wake / CRIU), "work": str(wake / WORK), "changed": changed}

    def woken(self, body: Body) -> None:
        """As the port says."""
        body.check()
        chosen = identity.wake_signal(body.config)
        if chosen is not None:
            with suppress(ProcessLookupError):
                os.kill(body.pid, chosen)

    def _images(self, image: Path, wake: Path, before: Identity, now: Identity) -> int:
        """Fill the restoration's folder; how many connections are closed."""
        pages.check(image / CRIU)
        _link(image / CRIU, wake / CRIU)
        (wake / WORK).mkdir(mode=0o700)
        (wake / _OPTIONS).write_text(criu.options(self._criu, *_RESTORE, *self._more))
        old, new = image / CRIU, wake / CRIU
        for names in old.glob(refit.HOST_NAMES):
            refit.host_name(names, new / names.name, str(now["host"]))
        moved = identity.moved(before, now)
        return refit.sockets(old / refit.FILE, new / refit.FILE, moved)

    def _files(self, image: Path, bundle: Path, config: Mapping[str, object]) -> None:
        with (image / rootfs.FILE).open("rb") as source:
            tree.unpack(source, bundle / "rootfs")
        volumes.unpack(config, image)

    def _as_before(self, body: Body, stood: bool) -> None:
        if stood:
            self._freezer.freeze(body.pid, body.container_id)
        else:
            self._freezer.thaw(body.pid, body.container_id)

    def _dump(self, body: Body, into: Path, watched: Sequence[str]) -> Mapping[str, str]:
        work = into.with_name(f".{into.name}.work")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        try:
            self._checkpoint(body, into / CRIU, work, watched)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        config = body.config
        with (into / rootfs.FILE).open("xb") as out:
            rootfs.pack(rootfs.upper(body.rootfs), body.rootfs, out)
        volumes.pack(config, into)
        found = facts.of(body, criu.version(self._criu))
        for name, content in (
            (facts.FILE, found),
            (identity.FILE, identity.of(config)),
            ("config.json", config),
        ):
            (into / name).write_bytes(orjson.dumps(content))
        return found

    def _checkpoint(self, body: Body, image: Path, work: Path, watched: Sequence[str]) -> None:
        chosen = work / _OPTIONS
        chosen.write_text(
            criu.options(self._criu, "link-remap", "skip-in-flight", *watched, *self._more)
        )
        if (body.bundle / WAKE / _OPTIONS).exists():  # one that was restored: runc has it from us
            shutil.copyfile(chosen, body.bundle / WAKE / _OPTIONS)
        paths = [f"--image-path={image}", f"--work-path={work}"]
        argv = [self._runc, f"--root={body.runc_root}", "checkpoint", *_DUMP, *paths]
        argv.append(body.container_id)
        code, said = _run(argv, {**os.environ, "CRIU_CONFIG_FILE": str(chosen)})
        if code:
            raise DumpFailed(criu.sentence(work / "dump.log") or criu.of_runc(said))
        with suppress(FileNotFoundError):
            (image / "stats-dump").unlink()  # differs from dump to dump, and nobody reads it


def _check_untouched(wake: Path, image: Path) -> None:
    """Raises Unrestorable for a container with files of another image: only a new one will do."""
    with suppress(FileNotFoundError):
        before = (wake / TOUCHED).read_text()
        if before != str(image):
            raise Unrestorable("this container was prepared for another checkpoint already")


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


def _link(image: Path, into: Path) -> None:
    """A folder with the names of an image's files; only names, as these can be many GiB.

    The links are relative: CRIU opens them when its root is the container's already, but the folder
    it opens them in is still where it was.
    """
    into.mkdir(mode=0o700, parents=True)
    to = os.path.relpath(image.resolve(), into.resolve())
    for file in image.iterdir():
        (into / file.name).symlink_to(f"{to}/{file.name}")


def _mapping(value: object) -> Mapping[str, str]:
    return value if isinstance(value, dict) else {}


def _size(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
