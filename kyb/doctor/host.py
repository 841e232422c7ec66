"""
This machine's files, processes and programs, also from a privileged container of it.

Called by: `node`, `containerd`, `kubelet`, `kyb.nodefiles`.
Rule: in a container that shares the node's processes, the node's files are those of its first one;
a daemon's files are looked for where the daemon sees them.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PROC = Path("/proc")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LONGEST_S = 20.0
_STARTED = 19  # its place in /proc/PID/stat, after the command's closing parenthesis


class CommandFailed(Exception):
    """A program could not be run, or said no; the text is its own last line."""


@dataclass(frozen=True, slots=True)
class Process:
    """One that runs, as its own mount namespace shows files."""

    pid: int

    @property
    def root(self) -> Path:
        """Where its files are for us."""
        return _root_of(self.pid)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Its command line."""
        raw = (PROC / str(self.pid) / "cmdline").read_bytes()
        return tuple(part.decode(errors="replace") for part in raw.split(b"\0") if part)

    @property
    def environment(self) -> Mapping[str, str]:
        """What it was started with."""
        raw = (PROC / str(self.pid) / "environ").read_bytes()
        pairs = (part.decode(errors="replace").partition("=") for part in raw.split(b"\0") if part)
        return {name: value for name, _, value in pairs}

    @property
    def program(self) -> str:
        """The file it runs, by its path there."""
        return str((PROC / str(self.pid) / "exe").readlink()).removesuffix(" (deleted)")

    @property
    def called(self) -> str:
        """That file by the name it was called, where it has several beside each other, as k3s has:
        what it does hangs on it.
        """
        file = Path(self.program)
        names = [Path(word).name for word in self.arguments[:1]]
        beside = file.with_name(next(filter(None, names), file.name))
        return str(beside if executable(self.root, str(beside)) else file)

    @property
    def started(self) -> float:
        """Seconds since the epoch."""
        fields = (PROC / str(self.pid) / "stat").read_text().rpartition(")")[2].split()
        boot = next(
            float(line.split()[1])
            for line in (PROC / "stat").read_text().splitlines()
            if line.startswith("btime")
        )
        return boot + int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")

    def flag(self, *names: str) -> str:
        """The value of the last of these flags, as `--name=value` or `--name value`; or empty."""
        return flag_of(self.arguments, *names)


def flag_of(arguments: Sequence[str], *names: str) -> str:
    """The same of a list of arguments."""
    found = ""
    for at, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else next(iter(arguments[at + 1 : at + 2]), "")
    return found


class Host:
    """A node. `root` is where its files are; by default found out."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or _root_of(1)

    def at(self, path: str | Path) -> Path:
        """A path of the node, for us."""
        return self.root / str(path).lstrip("/")

    def text(self, path: str | Path) -> str:
        """Raises OSError."""
        return self.at(path).read_text(errors="replace")

    def process(self, *names: str) -> Process | None:
        """The oldest process of one of these names, of this node rather than of a container."""
        found = []
        for folder in PROC.glob("[0-9]*"):
            with suppress(OSError):
                if (folder / "comm").read_text().strip() in names:
                    found.append(Process(int(folder.name)))
        mine = [one for one in found if same_files(one.pid, 1)] or found
        return min(mine, key=lambda one: one.pid, default=None)


def run(
    root: Path, argv: Sequence[str], path: str = "", seconds: float = _LONGEST_S
) -> tuple[str, str]:
    """Run a program of the file system at `root`; its output and its complaints.

    Raises CommandFailed.
    """
    change = partial(os.chroot, root) if root != Path("/") else None
    try:
        done = subprocess.run(
            list(argv),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env={"PATH": path or _PATH},
            cwd="/",
            preexec_fn=change,
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{argv[0]} did not end within {seconds:g} s") from None
    except (OSError, subprocess.SubprocessError) as problem:
        raise CommandFailed(f"{argv[0]}: {problem}") from problem
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise CommandFailed(said[-1] if said else f"{argv[0]} ended with {done.returncode}")
    return done.stdout, done.stderr


def which(root: Path, name: str, path: str = "") -> str:
    """The first such program on a PATH below `root`; empty where there is none."""
    for folder in (path or _PATH).split(":"):
        found = root / folder.lstrip("/") / name
        if folder and executable(root, str(found.relative_to(root))):
            return f"{folder}/{name}"
    return ""


def executable(root: Path, path: str) -> bool:
    """Whether there is a program at this path below `root`; links are followed within it."""
    found = root / path.lstrip("/")
    for _ in range(8):
        if not found.is_symlink():
            break
        target = found.readlink()
        found = root / str(target).lstrip("/") if target.is_absolute() else found.parent / target
    return found.is_file() and os.access(found, os.X_OK)


def same_files(pid: int, other: int) -> bool:
    """Whether two processes see the same mounts."""
    try:
        return os.path.samestat(
            (PROC / str(pid) / "ns/mnt").stat(), (PROC / str(other) / "ns/mnt").stat()
        )
    except OSError:
        return False


def _root_of(pid: int) -> Path:
    """`/` where it sees the same files as we do."""
    if same_files(pid, os.getpid()) or not os.access(PROC / str(pid) / "root/.", os.X_OK):
        return Path("/")
    return PROC / str(pid) / "root"
