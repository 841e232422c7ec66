"""
What of ours is on this node: files, containerd's setting, containers made by kybernate-runc.

Called by: `command`.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kyb.doctor import containerd, kubelet, runtimeconf, supported
from kyb.doctor.facts import Unknown
from kyb.doctor.host import Host
from kyb.nodefiles import distributions, snippet
from kyb.nodefiles.plan import (
    GUEST,
    PLUGIN,
    POOL,
    PRELOAD,
    PROGRAM,
    Container,
    ContainerdStands,
    Standing,
)

# All of them: nothing is taken from under containers whose containerd is away.
_STATES = (containerd.STATE, *(one.state for one in distributions.ALL))
_BUNDLES = "io.containerd.runtime.v2.task/k8s.io"
_RUNC = "/run/containerd/runc/k8s.io"  # the shim's own choice, whatever containerd's folder is
_SEAT_MARK = "kyb-seat.json"  # kybernate-runc's own: native/runtime
_NAMESPACE = "io.kubernetes.cri.sandbox-namespace"
_POD = "io.kubernetes.cri.sandbox-name"


def look(node: Host) -> Standing:
    """All of it."""
    stands, state = _containerd(node)
    folders = stands.folders if isinstance(stands, ContainerdStands) else ()
    told = kubelet.facts(node)
    usual = supported.KUBELET_REQUEST_TIMEOUT_S
    return Standing(
        program=_bytes(node.at(PROGRAM)),
        plugin=_bytes(node.at(PLUGIN)),
        guest=_bytes(node.at(GUEST)),
        preload=_bytes(node.at(PRELOAD)),
        conf=_text(node.at(runtimeconf.PATH)),
        drop_ins=tuple(_drop_ins(node, folders)),
        containerd=stands,
        request_timeout=usual if isinstance(told, Unknown) else told.request_timeout,
        containers=tuple(_containers(node, _programs(stands), {*_STATES, state})),
        parked=tuple(sorted(slot.parent.name for slot in node.at(POOL).glob("*/slot.json"))),
    )


def _containerd(node: Host) -> tuple[ContainerdStands | str, str]:
    """How it stands, or why that cannot be told; and its folder of what runs."""
    try:
        running = containerd.find(node)
        main = running.main_file
        stands = ContainerdStands(
            version=running.version,
            program=running.process.program,
            root_version=snippet.NEWEST if main is None else int(main.get("version", 1)),
            path=running.path,
            folders=tuple(_folders(running.imports)),
            systemd_cgroup=running.systemd_cgroup,
            handled=running.handled,
            stale=containerd.facts(running).stale,
        )
    except containerd.NotSeen as reason:
        return str(reason), containerd.STATE
    return stands, running.state


def _folders(imports: tuple[str, ...]) -> Iterator[str]:
    """Those of patterns like /etc/containerd/conf.d/*.toml."""
    for pattern in imports:
        folder, _, last = pattern.rpartition("/")
        if last == "*.toml" and folder.startswith("/") and not re.search(r"[*?\[]", folder):
            yield folder


def _drop_ins(node: Host, folders: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for folder in folders:
        path = f"{folder}/{snippet.NAME}"
        if (text := _text(node.at(path))) is not None:
            yield path, text


def _programs(stands: ContainerdStands | str) -> set[str]:
    """By which containers of ours are made: as installed, and as containerd has it."""
    handled = None if isinstance(stands, str) else stands.handled
    return {PROGRAM, handled} if handled else {PROGRAM}


def _containers(node: Host, programs: set[str], states: set[str]) -> Iterator[Container]:
    """Those whose shim calls our program, sandboxes included; and those on seats, however made."""
    bundles = {one for state in states for one in node.at(f"{state}/{_BUNDLES}").glob("*")}
    for bundle in sorted(bundles):
        seated = (node.at(_RUNC) / bundle.name / _SEAT_MARK).exists()
        if seated or _called_by(bundle) in programs:
            yield Container(id=bundle.name, pod=_pod_of(bundle))


def _called_by(bundle: Path) -> str:
    """The program in the options that containerd gave to the container's shim."""
    with suppress(OSError, ValueError, AttributeError):
        return str(json.loads((bundle / "options.json").read_bytes()).get("binary_name", ""))
    return ""


def _pod_of(bundle: Path) -> str:
    with suppress(OSError, ValueError, KeyError):
        annotations = json.loads((bundle / "config.json").read_bytes())["annotations"]
        return f"{annotations[_NAMESPACE]}/{annotations[_POD]}"
    return f"container {bundle.name}"


def _bytes(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes()
    return None


def _text(path: Path) -> str | None:
    found = _bytes(path)
    return None if found is None else found.decode(errors="replace")
