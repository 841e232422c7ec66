"""
Containers without Kubernetes: bundles on an overlay, as containerd makes them, for runc by hand and
for what stands in its place.

Called by: `benchmarks.images`. Needs root, and a mount namespace of its own.
"""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

PROGRAM = "/bin/holder"
_PATIENCE_S = 120.0
_ANNOTATIONS = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.sandbox-namespace": "default",
    "io.kubernetes.cri.sandbox-name": "model",
    "io.kubernetes.cri.sandbox-uid": "uid",
    "io.kubernetes.cri.container-name": "model",
}


class Counted:
    """The lines a container has written, and when; whoever makes it gets `end`."""

    def __init__(self) -> None:
        read, self.end = os.pipe()
        self._lines: list[tuple[float, int]] = []
        self._more = threading.Condition()
        threading.Thread(target=self._follow, args=(os.fdopen(read, "rb"),), daemon=True).start()

    def first(self) -> tuple[float, int]:
        """When its first number came, and which. Raises TimeoutError."""
        with self._more:
            if not self._more.wait_for(lambda: bool(self._lines), _PATIENCE_S):
                raise TimeoutError("the container says nothing")
            return self._lines[0]

    def _follow(self, lines: IO[bytes]) -> None:
        with lines:
            for line in lines:
                with self._more:
                    self._lines.append((time.perf_counter(), int(line)))
                    self._more.notify_all()


@dataclass
class Bundles:
    """A folder of bundles over one root file system."""

    folder: Path
    mebibytes: int
    environment: Mapping[str, str]  # with runc and criu on its PATH
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        """Make what they share. Raises CalledProcessError."""
        self.root = self.folder / "runc"
        lower = self.folder / "lower" / "bin"
        lower.mkdir(parents=True)
        source = Path(__file__).with_name("holder.c")
        subprocess.run(["cc", "-O2", "-static", "-o", lower / "holder", source], check=True)

    def make(self, name: str) -> Path:
        """A new bundle, its root file system mounted."""
        bundle = self.folder / name
        for part in ("upper", "work", "rootfs"):
            (bundle / part).mkdir(parents=True)
        layers = f"lowerdir={self.folder / 'lower'},upperdir={bundle / 'upper'}"
        self._run("mount", "-t", "overlay", "-o", f"{layers},workdir={bundle / 'work'}",
                  "overlay", bundle / "rootfs")  # fmt: skip
        self._run("runc", "spec", "--bundle", bundle)
        config = json.loads((bundle / "config.json").read_text())
        (bundle / "config.json").write_text(json.dumps(self._config(config, name)))
        return bundle

    def _config(self, config: dict[str, Any], name: str) -> dict[str, Any]:
        config["process"] |= {"terminal": False, "args": [PROGRAM, str(self.mebibytes)]}
        config["process"]["env"].append("KYB_GPU_SEAT=G0/1")
        config["root"]["readonly"] = False
        config["annotations"] = _ANNOTATIONS
        config["linux"]["cgroupsPath"] = f"/kyb-bench-{os.getpid()}-{name}"
        return config

    def run(self, *argv: str | Path, out: int | None = None) -> float:
        """One command to its end, with what the container writes going to `out`; seconds."""
        began = time.perf_counter()
        self._run(*argv, out=out)
        return time.perf_counter() - began

    def runc(self, *argv: str | Path, out: int | None = None) -> float:
        """runc, by hand; seconds."""
        return self.run("runc", "--root", self.root, *argv, out=out)

    def remove(self, bundle: Path) -> None:
        """The container and its bundle."""
        self._run("runc", "--root", self.root, "delete", "--force", bundle.name)
        self._run("umount", bundle / "rootfs")
        shutil.rmtree(bundle)

    def _run(self, *argv: str | Path, out: int | None = None) -> None:
        errors = self.folder / "errors"
        with errors.open("w") as told:
            done = subprocess.run(
                [str(one) for one in argv],
                stdin=subprocess.DEVNULL,
                stdout=told if out is None else out,
                stderr=told if out is None else out,
                check=False,
                env=dict(self.environment),
            )
        if done.returncode:
            raise RuntimeError(f"{argv}: {errors.read_text()}")


def programs(into: Path, named: Mapping[str, Path], criu_options: str) -> Path:
    """A folder for PATH; criu comes with a configuration, unless its caller has one."""
    into.mkdir()
    (into / "criu.conf").write_text(criu_options)
    for name, program in named.items():
        (into / name).symlink_to(program)
    launcher = into / "criu"
    real = launcher.readlink()
    launcher.unlink()
    given = f'export CRIU_CONFIG_FILE="${{CRIU_CONFIG_FILE:-{into / "criu.conf"}}}"'
    launcher.write_text(f'#!/bin/sh\n{given}\nexec {real} "$@"\n')
    launcher.chmod(0o755)
    return into


def private(argv: Sequence[str]) -> None:
    """Go on in a mount namespace of our own, so that nothing stays mounted. Never returns."""
    os.execvp("unshare", ["unshare", "--mount", "--propagation=private", *argv])
