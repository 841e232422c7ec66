"""
`python -m benchmarks.runtime`: what kybernate-runc adds to runc's commands, in milliseconds.

The runc behind it is /bin/true, so what is shown beyond the first line is ours alone; the agent is
a listener in this process that agrees to everything.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kybernate.testing.runtimelistener import RuntimeListener
from testbed.assets import native

TIMES = 300
_RUNC = "/bin/true"
_ANNOTATIONS = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.sandbox-namespace": "default",
    "io.kubernetes.cri.sandbox-name": "model",
    "io.kubernetes.cri.sandbox-uid": "uid",
    "io.kubernetes.cri.container-name": "model",
}


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="kyb-") as name:
        folder = Path(name)
        environment = {"KYB_RUNTIME_CONF": str(_prepare(folder))}
        program = str(native.runtime())
        create = [program, "--root", str(folder / "root"), "create", "--bundle", name, "c"]
        with RuntimeListener(folder / "runtime.sock"):
            _print("runc's stand-in alone", [_RUNC], environment)
            _print("any other command", [program, "state", "c"], environment)
            (folder / "config.json").write_text(json.dumps(_config(seat=False)))
            _print("create, plain", create, environment)
            (folder / "config.json").write_text(json.dumps(_config(seat=True)))
            _print("create, on a seat", create, environment)
    return 0


def _prepare(folder: Path) -> Path:
    """What runc would have left, and our settings; the settings' path."""
    (folder / "root" / "c").mkdir(parents=True)
    state = {"init_process_pid": 1, "init_process_start": 1, "config": _config(seat=True)}
    (folder / "root" / "c" / "state.json").write_text(json.dumps(state))
    settings = folder / "runtime.conf"
    settings.write_text(f"runc = {_RUNC}\nsocket = {folder}/runtime.sock\n")
    return settings


def _config(*, seat: bool) -> Mapping[str, Any]:
    """As long as containerd's are."""
    variables = [f"SERVICE_{number}=10.0.0.{number}" for number in range(100)]
    variables += ["KYB_GPU_SEAT=seat-0"] if seat else []
    mount = {"destination": "/a/mount", "type": "bind", "options": ["rbind", "ro"]}
    return {
        "process": {"env": variables, "args": ["serve"]},
        "annotations": _ANNOTATIONS,
        "mounts": [mount] * 40,
    }


def _print(what: str, argv: list[str], environment: Mapping[str, str]) -> None:
    taken = sorted(_timed(argv, environment) for _ in range(TIMES))
    p50, p99 = taken[TIMES // 2] * 1e3, taken[int(TIMES * 0.99)] * 1e3
    print(f"{what:24} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms", flush=True)


def _timed(argv: list[str], environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    _, status = os.waitpid(os.posix_spawn(argv[0], argv, environment), 0)
    taken = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(argv)} failed")
    return taken


if __name__ == "__main__":
    sys.exit(main())
