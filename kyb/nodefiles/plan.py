"""
What is on a node -> what to do about it. Pure.

Called by: `command`.
Rule: a plan says everything it will do, and what it leaves to people.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kyb.doctor import runtimeconf, supported
from kyb.nodefiles import distributions, snippet
from kyb.nodefiles.snippet import Snippet
from kybernate.api import names

PROGRAM = "/opt/kybernate/bin/kybernate-runc"
PLUGIN = "/opt/kybernate/criu/kyb-closed.so"  # the agent's --criu-plugins names its folder
GUEST = "/opt/kybernate/lib/libkybguest.so"  # the device plugin's --guest-library
PRELOAD = "/opt/kybernate/lib/ld.so.preload"  # beside it: what containers have in /etc
PRELOADED = f"{names.GUEST_LIBRARY}\n".encode()
USUAL_FOLDER = "/etc/containerd/conf.d"
POOL = "/dev/shm/kyb"  # noqa: S108 - where the manifests put it
_MODE, _PROGRAM_MODE = 0o644, 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerdStands:
    """containerd as it is set up. `handled` is the BinaryName of its runtime `kybernate`."""

    version: str
    program: str
    root_version: int
    """`version` of its main file; that of a default configuration where there is none."""
    path: str
    folders: tuple[str, ...]
    """Of drop-in files: `*.toml` in them is read."""
    systemd_cgroup: bool
    handled: str | None
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One that was made by kybernate-runc. `pod` is NAMESPACE/NAME."""

    id: str
    pod: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is on a node now; None for a file that is not there."""

    program: bytes | None
    plugin: bytes | None
    guest: bytes | None
    preload: bytes | None
    conf: str | None
    drop_ins: tuple[tuple[str, str], ...]
    """Path and text of our drop-in files, wherever they are."""
    containerd: ContainerdStands | str
    """Or why it cannot be told."""
    request_timeout: float
    containers: tuple[Container, ...] = ()
    parked: tuple[str, ...] = ()
    """Names of contents in the agent's pool."""


@dataclass(frozen=True, slots=True)
class Write:
    """A file as a whole."""

    path: str
    content: bytes
    mode: int = _MODE


@dataclass(frozen=True, slots=True)
class Remove:
    """A file."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in order; what stays as it is; what is left for people, in words."""

    steps: tuple[Write | Remove, ...] = ()
    kept: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is done, and why, each in a line."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Brought:
    """What is compiled: kybernate-runc, CRIU's plugin, the guest library."""

    program: bytes
    plugin: bytes
    guest: bytes


def install(now: Standing, brought: Brought) -> Plan | Refused:
    """Bring the files that are not as they should be."""
    found = now.containerd
    if isinstance(found, str):
        return Refused((found,))
    if not supported.at_least(found.version, "2"):
        return Refused((f"containerd is {found.version}, needed is 2.0 or newer",))
    steps: list[Write | Remove] = []
    kept: list[str] = []
    _note(steps, kept, Write(PROGRAM, brought.program, _PROGRAM_MODE), now.program)
    _note(steps, kept, Write(PLUGIN, brought.plugin, _PROGRAM_MODE), now.plugin)
    _note(steps, kept, Write(GUEST, brought.guest, _PROGRAM_MODE), now.guest)
    _note(steps, kept, Write(PRELOAD, PRELOADED), now.preload)
    if now.conf is None:
        steps.append(Write(runtimeconf.PATH, _runtime_conf(now).encode()))
    else:
        kept.append(f"{runtimeconf.PATH}, as it is")
    written = _drop_in(now, found)
    if isinstance(written, Refused):
        return written
    if written is None:
        kept.append(f"the runtime in {found.path}, configured by hand")
    else:
        old = dict(now.drop_ins).get(written.path)
        _note(steps, kept, written, None if old is None else old.encode())
    return Plan(steps=tuple(steps), kept=tuple(kept), left=_left(now, found, steps))


def uninstall(now: Standing) -> Plan | Refused:
    """Take them away again, once no container needs them."""
    if now.containers:
        pods = sorted({one.pod for one in now.containers})
        return Refused(
            (
                "containers of these pods were made by kybernate-runc, and could be neither woken "
                "nor ended without it:",
                *(f"  {pod}" for pod in pods),
                "delete them first (kubectl delete pod -n NAMESPACE NAME), parked ones too",
            )
        )
    steps = [Remove(path) for path, _ in now.drop_ins]
    steps += [Remove(PROGRAM)] if now.program is not None else []
    steps += [Remove(PLUGIN)] if now.plugin is not None else []
    steps += [Remove(GUEST)] if now.guest is not None else []
    steps += [Remove(PRELOAD)] if now.preload is not None else []
    kept = ["/var/lib/kyb, the agent's journal"]
    if now.conf is not None and now.conf == _runtime_conf(now):
        steps.append(Remove(runtimeconf.PATH))
    elif now.conf is not None:
        kept.append(f"{runtimeconf.PATH}, which somebody edited")
    found = now.containerd
    program = "" if isinstance(found, str) else found.program
    left = [distributions.restart(program)] if now.drop_ins else []
    if now.parked:
        # Their containers are gone, so nobody will ever ask for them; the memory is still taken.
        left.append(f"remove {POOL}: contents of {len(now.parked)} workloads that are gone")
    return Plan(steps=tuple(steps), kept=tuple(kept), left=tuple(left))


def _runtime_conf(now: Standing) -> str:
    return snippet.runtime_conf(runtimeconf.fitting(now.request_timeout))


def _note(
    steps: list[Write | Remove], kept: list[str], wanted: Write, content: bytes | None
) -> None:
    if content == wanted.content:
        kept.append(f"{wanted.path}, unchanged")
    else:
        steps.append(wanted)


def _drop_in(now: Standing, found: ContainerdStands) -> Write | Refused | None:
    """The drop-in file as it should be; None where somebody else set the runtime up."""
    text = Snippet(
        program=PROGRAM, systemd_cgroup=found.systemd_cgroup, version=found.root_version
    ).text()
    mine = [path for path, _ in now.drop_ins]
    edited = distributions.edited(found.program, found.path)
    if mine:
        return Write(mine[0], text.encode())
    if found.handled is not None:
        if found.handled == PROGRAM:
            return None
        return Refused(
            (
                f"{edited} has a runtime kybernate with BinaryName "
                f"{found.handled or '(none)'}: make it {PROGRAM}, or remove it",
            )
        )
    folder = _folder(found.folders)
    if folder is None:
        return Refused(
            (
                f"{edited} reads no folder of drop-in files. Add to it",
                f"  imports = ['{USUAL_FOLDER}/*.toml']",
                "or put this there yourself:",
                *text.splitlines(),
            )
        )
    return Write(f"{folder}/{snippet.NAME}", text.encode())


def _folder(folders: Sequence[str]) -> str | None:
    """The usual one where it is read, else the last, which wins over those before."""
    return USUAL_FOLDER if USUAL_FOLDER in folders else next(iter(folders[::-1]), None)


def _left(
    now: Standing, found: ContainerdStands, steps: Sequence[Write | Remove]
) -> tuple[str, ...]:
    """What people have to do afterwards."""
    changed = any(step.path.endswith(".toml") for step in steps)
    unread = changed or found.stale or found.handled is None
    left = [distributions.restart(found.program)] if unread else []
    conf = runtimeconf.read(now.conf or "")
    left += [f"correct {runtimeconf.PATH}: {fault}" for fault in conf.faults]
    left += [
        f"{name} in {runtimeconf.PATH} is {seconds:g} s, not below the kubelet's "
        f"runtimeRequestTimeout of {now.request_timeout:g} s"
        for name, seconds in runtimeconf.waits(conf).items()
        if now.conf is not None and seconds >= now.request_timeout
    ]
    return tuple(left)
