"""
containerd's drop-in file: the runtime `kybernate`. Pure.

Called by: `plan`. The words are those of containerd 2.x.
Rule: a drop-in file of a newer version than the main file keeps containerd from starting, so it
speaks the main file's, down to 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kybernate.api import names

NEWEST, OLDEST = 3, 2
NAME = "50-kybernate.toml"
ANNOTATIONS = ("kyb.ai/*",)
_PLUGINS = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """What the text depends on. `version` is the main file's."""

    program: str
    systemd_cgroup: bool
    version: int = NEWEST

    def text(self) -> str:
        """TOML."""
        version = max(OLDEST, min(self.version, NEWEST))
        runtimes = f"plugins.'{_PLUGINS[version]}'.containerd.runtimes.{names.RUNTIME_CLASS}"
        annotations = ", ".join(f"'{one}'" for one in ANNOTATIONS)
        return (
            "# Written by `kyb install-node`: who makes pods of the RuntimeClass kybernate.\n"
            f"version = {version}\n\n"
            f"[{runtimes}]\n"
            "  runtime_type = 'io.containerd.runc.v2'\n"
            f"  pod_annotations = [{annotations}]\n"
            f"  container_annotations = [{annotations}]\n"
            f"[{runtimes}.options]\n"
            f"  BinaryName = '{self.program}'\n"
            f"  SystemdCgroup = {str(self.systemd_cgroup).lower()}\n"
        )


def runtime_conf(waits: Mapping[str, float]) -> str:
    """/etc/kyb/runtime.conf, where there is none yet."""
    return (
        "# Settings of kybernate-runc: docs/reference/runtime.md\n"
        "# runc = /usr/bin/runc\n"
        "# socket = /run/kyb/runtime.sock\n"
        "# Below the kubelet's runtimeRequestTimeout.\n"
        + "".join(f"{name} = {seconds:g}\n" for name, seconds in waits.items())
    )
