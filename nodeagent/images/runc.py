"""
Images by runc and CRIU.

Called by: whoever holds a `ProcessImages`.
An image's folder: `criu/` (what CRIU and runc write), `image.json` (its facts).
A restoration's folder, `<bundle>/kyb-wake`, goes with the bundle: `criu/` (links to the image's
files, and our own in place of those that must differ), `criu.conf`, `work/` (CRIU's logs).
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson

from nodeagent.freezer import Freezing, NotFrozen, NotThawed
from nodeagent.images import criu, facts
from nodeagent.images.body import CRIU_CONFIG, Body, read_config, write_config
from nodeagent.images.port import Dumped, DumpFailed, Unfit, Unrestorable

CRIU, WORK = "criu", "work"
WAKE = "kyb-wake"
_DUMP = (
    "--leave-running", "--tcp-established", "--tcp-skip-in-flight", "--ext-unix-sk",
    "--file-locks", "--link-remap", "--manage-cgroups-mode=ignore",
)  # fmt: skip
_LIMIT_S = 600.0  # 1 GiB takes a second; nothing real takes this


class RuncImages:
    """A `ProcessImages`."""

    def __init__(self, freezer: Freezing, runc: str = "runc", criu_program: str = "criu") -> None:
        """Programs by name on PATH, or by path. runc itself looks for `criu` on its PATH."""
        self._freezer, self._runc, self._criu = freezer, runc, criu_program

    def unfit(self, body: Body) -> tuple[Unfit, ...]:
        """As the port says."""
        body.check()
        return ()

    def dump(self, body: Body, into: Path) -> Dumped:
        """As the port says."""
        body.check()
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        stood = self._freezer.frozen(body.pid, body.container_id)
        try:
            self._freezer.freeze(body.pid, body.container_id)
            try:
                self._dump(body, into)
            finally:
                self._as_before(body, stood)
        except (NotFrozen, NotThawed, OSError) as error:
            raise DumpFailed(str(error)) from error
        found = facts.of(body, criu.version(self._criu))
        (into / facts.FILE).write_bytes(orjson.dumps(found))
        return Dumped(folder=into, size=_size(into), facts=found)

    def restoration(self, image: Path, bundle: Path) -> Mapping[str, str]:
        """As the port says."""
        facts.check(image, criu.version(self._criu))
        config = dict(read_config(bundle))
        wake = bundle / WAKE
        try:
            shutil.rmtree(wake, ignore_errors=True)  # of a try before
            _link(image / CRIU, wake / CRIU)
            (wake / WORK).mkdir(mode=0o700)
            chosen = wake / "criu.conf"
            chosen.write_text(criu.options(self._criu, "leave-stopped"))
            annotations = dict(_mapping(config.get("annotations")))
            config["annotations"] = {**annotations, CRIU_CONFIG: str(chosen)}
            write_config(bundle, config)
        except OSError as error:
            raise Unrestorable(str(error)) from error
        return {"image": str(wake / CRIU), "work": str(wake / WORK)}

    def _as_before(self, body: Body, stood: bool) -> None:
        if stood:
            self._freezer.freeze(body.pid, body.container_id)
        else:
            self._freezer.thaw(body.pid, body.container_id)

    def _dump(self, body: Body, into: Path) -> None:
        work = into.with_name(f".{into.name}.work")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        try:
            self._checkpoint(body, into / CRIU, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _checkpoint(self, body: Body, image: Path, work: Path) -> None:
        chosen = work / "criu.conf"
        chosen.write_text(criu.options(self._criu))
        paths = [f"--image-path={image}", f"--work-path={work}"]
        argv = [self._runc, f"--root={body.runc_root}", "checkpoint", *_DUMP, *paths]
        try:
            done = subprocess.run(
                [*argv, body.container_id],
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
                check=False,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # what stops us must not stop it halfway
                env={**os.environ, "CRIU_CONFIG_FILE": str(chosen)},
            )
        except FileNotFoundError as missing:
            raise DumpFailed(f"{self._runc} is not there") from missing
        except subprocess.TimeoutExpired as late:
            raise DumpFailed(f"it took longer than {_LIMIT_S:.0f} s") from late
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise DumpFailed(criu.sentence(work / "dump.log") or last)
        with suppress(FileNotFoundError):
            (image / "stats-dump").unlink()  # differs from dump to dump, and nobody reads it


def _link(image: Path, into: Path) -> None:
    """A folder with the names of an image's files; only names, as these can be many GiB."""
    into.mkdir(mode=0o700, parents=True)
    for file in image.iterdir():
        (into / file.name).symlink_to(file)


def _mapping(value: object) -> Mapping[str, str]:
    return value if isinstance(value, dict) else {}


def _size(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
