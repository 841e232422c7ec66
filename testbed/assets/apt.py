"""
Fetching Debian packages without touching the system's own: private lists, private cache, no root.

Called by: `testbed.assets.debian` (unpacks what is pinned) and `testbed.assets.pin` (writes pins).
Rule: packages come from the mirror this machine is configured for, with another suite's name where
another suite is asked for; no host is named here.
Rule: apt checks the archive's signature; who fetches checks the pinned hash on top.
"""

import getpass
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.assets import patient

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class PackagesUnavailable(Exception):
    """Packages cannot be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where this machine's own packages come from."""

    uri: str

    def source(self, suite: str) -> str:
        """The line of a sources.list for this suite."""
        trusted = f" [signed-by={KEYRING}]" if KEYRING.exists() else ""
        return f"deb{trusted} {self.uri} {suite} main\n"


def why_not() -> str | None:
    """Why Debian packages cannot be fetched here; None when they can."""
    if _release().get("ID") != "debian":
        return "this machine is not a Debian"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return "apt-get and dpkg-deb are not there"
    return None if _find_mirror() else "apt is not configured for a mirror of this Debian"


def mirror() -> Mirror:
    """This machine's. Raises PackagesUnavailable."""
    problem = why_not()
    found = _find_mirror()
    if problem or found is None:
        raise PackagesUnavailable(problem or "no mirror")
    return found


def architecture() -> str:
    """Debian's word for this machine's kind."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class Apt:
    """apt with one suite's lists in a private folder."""

    def __init__(self, folder: Path, suite: str, tick: Callable[[], None] = lambda: None) -> None:
        self._folder = folder.absolute()
        self._suite = suite
        self._tick = tick
        for part in ("lists/partial", "cache/archives/partial"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        (self._folder / "sources.list").write_text(mirror().source(suite))

    def update(self) -> None:
        """Get the suite's lists. Raises PackagesUnavailable."""
        self._patiently(["apt-get", *self._options(), "update"], self._folder)

    def download(self, packages: Sequence[str], into: Path) -> None:
        """Leave the .deb files there; a package is `name` or `name=version`.

        Raises PackagesUnavailable, for example when the mirror has another version by now.
        """
        self._patiently(["apt-get", *self._options(), "download", *packages], into)

    def ask(self, *words: str) -> str:
        """What apt-get or apt-cache answers. Raises PackagesUnavailable."""
        program, *rest = words
        done = subprocess.run(
            [program, *self._options(), *rest], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PackagesUnavailable(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def _patiently(self, argv: list[str], cwd: Path) -> None:
        output = self._folder / "apt.log"
        if patient.run(argv, output, self._tick, cwd=cwd):
            raise PackagesUnavailable(f"apt-get, suite {self._suite}:\n{patient.tail(output)}")

    def _options(self) -> list[str]:
        """None of the system's lists, preferences or installed packages count."""
        settings = {
            "Dir::State::Lists": self._folder / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self._folder / "cache",
            "Dir::Etc::SourceList": self._folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "APT::Default-Release": "",
            "APT::Sandbox::User": getpass.getuser(),
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "1",
        }
        return [f"-o{key}={value}" for key, value in settings.items()]


def _find_mirror() -> Mirror | None:
    """The entry of this very release: not its updates, and nobody else's archive."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"]
    done = subprocess.run(
        [*asked, "Created-By: Packages"], capture_output=True, text=True, check=False
    )
    release = _release().get("VERSION_CODENAME")
    entries = [line.split() for line in done.stdout.splitlines()]
    return next((Mirror(uri) for uri, suite in entries if suite == release), None)


def _release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
