"""
buildah, which needs no daemon: out of pinned packages, in a mount namespace of its own.

Called by: `testbed.imaging`.
Rule: it keeps everything in the folder it is given. Containers are chroots, and layers are stacked
where that can be (plain copies take several times as long), so it needs root, but not
CAP_SYS_RESOURCE.
Rule: nothing is pulled: what an image starts from has to be in the folder.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import assets
from testbed.assets import apt
from testbed.node import machine

_TOOLS = ("ldconfig", "mount", "perl", "unshare")
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}\n'
# It starts itself again without our environment, so the loader has to find its libraries by itself.
_WITH_LIBRARIES = 'mount --bind "$1" /etc/ld.so.cache && shift && exec "$@"'


class BuildahFailed(Exception):
    """A command of it failed; the message has the command and the end of what it said."""


def why_not() -> str | None:
    """Why no image can be built here, in a sentence; None when it can."""
    if sys.platform != "linux" or os.geteuid():
        return "images are built by root on Linux"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"these programs are not installed: {', '.join(missing)}"
    if problem := machine.why_no_containers():
        return problem
    return None if assets.have(("buildah", "mmdebstrap")) else apt.why_not()


@dataclass(frozen=True, slots=True)
class Buildah:
    """Images in a folder."""

    program: Path
    folder: Path
    driver: str

    @classmethod
    def of(cls, folder: Path) -> "Buildah":
        """With an empty folder. Raises what `assets.ensure` raises."""
        driver = "overlay" if machine.overlay_works(folder / "probe") else "vfs"
        made = cls(assets.ensure(["buildah"])["buildah"], folder, driver)
        (folder / "tmp").mkdir(parents=True)
        (folder / "policy.json").write_text(_POLICY)
        (folder / "registries.conf").write_text("")
        made._write_cache()
        return made

    def new(self, image: str) -> str:
        """A container of an image that is here, or of `scratch`; its name."""
        return self._run("from", "--signature-policy", self._policy, "--pull-never", image).strip()

    def add(self, container: str, source: Path, target: str) -> None:
        """A file; of a tar file, what is in it."""
        self._run("add", "--quiet", container, str(source), target)

    def configure(self, container: str, *options: str) -> None:
        """As `buildah config` has them."""
        self._run("config", *options, container)

    def commit(self, container: str, image: str) -> None:
        """Make an image of a container, which goes."""
        policy = ("--signature-policy", self._policy)
        self._run("commit", *policy, "--rm", "--quiet", container, image)

    def build(self, dockerfile: Path, context: Path, target: str, image: str) -> None:
        """One target. Layers that are here already are used again; what it says is passed on."""
        ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
        files = ("--file", str(dockerfile), "--ignorefile", str(ignored))
        how = ("--layers", "--pull-never", "--signature-policy", self._policy)
        self._run("build", *how, *files, "--target", target, "--tag", image, str(context), out=None)

    def asked(self, image: str, form: str) -> str:
        """A fact of an image, by a Go template."""
        return self._run("inspect", "--type", "image", "--format", form, image).strip()

    def run(self, container: str, argv: Sequence[str]) -> str:
        """A program in it, as the image's user; what it wrote."""
        return self._run("run", container, "--", *argv)

    def save(self, image: str, file: Path) -> None:
        """As an archive for `ctr images import`, with its name; one that is there is replaced."""
        file.unlink(missing_ok=True)
        policy = ("--signature-policy", self._policy)
        self._run("push", "--quiet", *policy, image, f"docker-archive:{file}:{image}")

    def remove(self, container: str) -> None:
        """A container."""
        self._run("rm", container)

    @property
    def _policy(self) -> str:
        return str(self.folder / "policy.json")

    def _write_cache(self) -> None:
        """The loader's, with the libraries that came with it."""
        listed = self.folder / "libraries.conf"
        unpacked = self.program.parents[2]
        there = sorted(p for lib in ("lib", "usr/lib") for p in unpacked.glob(f"{lib}/*-linux-gnu"))
        system = Path("/etc/ld.so.conf")
        listed.write_text("".join(f"{one}\n" for one in there))
        if system.exists():
            listed.write_text(f"{listed.read_text()}include {system}\n")
        argv = ["ldconfig", "-X", "-C", str(self.folder / "ld.so.cache"), "-f", str(listed)]
        subprocess.run(argv, check=True, capture_output=True)

    def _run(self, *arguments: str, out: int | None = subprocess.PIPE) -> str:
        stored = ("--root", str(self.folder / "store"), "--runroot", str(self.folder / "run"))
        cache = str(self.folder / "ld.so.cache")
        private = ("unshare", "--mount", "--propagation=private", "sh", "-ec", _WITH_LIBRARIES)
        done = subprocess.run(
            [*private, "sh", cache, str(self.program), *stored, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            text=True,
            check=False,
            env=self._environment(),
        )
        if done.returncode:
            said = (done.stderr or "").strip()[-2000:]
            raise BuildahFailed(f"buildah {' '.join(arguments)}: {said or done.returncode}")
        return done.stdout or ""

    def _environment(self) -> dict[str, str]:
        chosen = {
            "BUILDAH_ISOLATION": "chroot",
            "STORAGE_DRIVER": self.driver,
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
            "TMPDIR": str(self.folder / "tmp"),
        }
        return {**os.environ, **chosen}
