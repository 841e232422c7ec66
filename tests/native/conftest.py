"""
Real: kybernate-runc as it ships, its files, the socket. Faked: the runc it calls (a shell script
that keeps its arguments and leaves what runc leaves), and the agent, which the test answers for.
Observed: exit codes, what was written, which runc was called with what.
"""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kybernate.clients.runtimecalls import Op
from kybernate.testing.runtimelistener import RuntimeListener, agree
from testbed.assets import native
from testbed.assets.compiler import BuildFailed

ID = "c0ffee"
# $1.. are runc's arguments; what runc leaves is made where a test's runc would make it.
_RUNC = r"""#!/bin/sh
printf '%s\n' "$*" >>"$BOX/calls"
case " $* " in
*" create "*)
  [ -e "$BOX/no-create" ] && { echo '{"level":"error","msg":"runc says no"}' >>"$BOX/log"; exit 3; }
  mkdir -p "$BOX/root/$CID"
  mkfifo "$BOX/root/$CID/exec.fifo"
  echo '{"id":"x","init_process_pid":'$INIT',"init_process_start":'$STARTED'}' \
    >"$BOX/root/$CID/state.json"
  echo created ;;
*" restore "*)
  [ -e "$BOX/no-restore" ] && { cp "$BOX/no-restore" "$BOX/restore.log"; exit 3; }
  mkdir -p "$BOX/root/$CID"
  echo '{"id":"x","init_process_pid":'$INIT',"init_process_start":'$STARTED'}' \
    >"$BOX/root/$CID/state.json" ;;
*" delete "*) rm -rf "$BOX/root/$CID" ;;
*" exec "*)
  [ -e "$BOX/process.json" ] && cat "$BOX/process.json"
  for word in "$@"; do [ "$before" = --pid-file ] && pid_file=$word; before=$word; done
  [ -e "$BOX/program" ] && { sh "$BOX/program" & printf %s $! >"$pid_file"; }
  [ -e "$BOX/no-exec" ] && { echo '{"msg":"no such program"}' >>"$BOX/log"; exit 4; } ;;
esac
exit 0
"""
ANNOTATIONS = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.sandbox-namespace": "team",
    "io.kubernetes.cri.sandbox-name": "model-0",
    "io.kubernetes.cri.sandbox-uid": "u-1",
    "io.kubernetes.cri.container-name": "model",
}
CONFIG = {
    "ociVersion": "1.1.0",
    "process": {"args": ["serve"], "env": ["PATH=/bin", "KYB_GPU_SEAT=G0/1"], "cwd": "/"},
    "annotations": ANNOTATIONS,
}


@pytest.fixture(scope="session")
def runtime():
    """The program as it ships."""
    try:
        return native.runtime()
    except BuildFailed as problem:
        if native.why_not():
            pytest.skip(native.why_not())
        raise problem


@pytest.fixture(scope="session")
def checked_runtime(runtime):
    """The program with checks of every access; the plain one where the compiler has none."""
    try:
        return native.runtime(native.CHECKED)
    except BuildFailed:
        return runtime


@dataclass
class Box:
    """A folder that is all that kybernate-runc sees."""

    program: Path
    folder: Path
    agent: RuntimeListener
    environment: dict = field(default_factory=dict)
    id: str = ID

    def config(self, **annotations):
        """A config.json for a container on a seat; an annotation that is None is left out."""
        named = {f"io.kubernetes.cri.{key.replace('_', '-')}": v for key, v in annotations.items()}
        merged = {**ANNOTATIONS, **named}
        return {**CONFIG, "annotations": {k: v for k, v in merged.items() if v is not None}}

    def call(self, *argv, root=True, program=None):
        """Run it; its result. Fails after 30 s."""
        start = ["--root", str(self.folder / "root")] if root else []
        log = ["--log", str(self.folder / "log"), "--log-format", "json"]
        return subprocess.run(
            [program or self.program, *start, *log, *map(str, argv)],
            check=False,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            cwd=self.folder,
        )

    def create(self, config=CONFIG, **how):
        text = config if isinstance(config, bytes) else json.dumps(config).encode()
        (self.folder / "config.json").write_bytes(text)
        pid_file = self.folder / "init.pid"
        return self.call("create", "--bundle", self.folder, "--pid-file", pid_file, ID, **how)

    def held(self):
        """Create one on a seat and start it."""
        assert self.create().returncode == 0
        assert self.call("start", ID).returncode == 0
        self.clear()

    def release(self):
        """As the agent does."""
        self.fifo.unlink()

    def clear(self):
        (self.folder / "calls").unlink(missing_ok=True)

    @property
    def fifo(self):
        return self.folder / "root" / ID / "exec.fifo"

    @property
    def mark(self):
        return self.folder / "root" / ID / "kyb-seat.json"

    @property
    def untold(self):
        folder = self.agent.path.with_name("untold")
        return sorted(one.name for one in folder.iterdir()) if folder.exists() else []

    @property
    def calls(self):
        """What the real runc was called with, without the flags for its log."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        logged = f" --log {self.folder}/log --log-format json"
        return [f" {line}".replace(logged, "").strip() for line in lines]

    @property
    def errors(self):
        file = self.folder / "log"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line)["msg"] for line in lines]

    def configure(self, **lines):
        text = "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in lines.items())
        (self.folder / "runtime.conf").write_text(text)

    def wake(self):
        """From now on, what is created is to be restored."""
        reply = {"ok": "restore", "image": str(self.folder / "image"), "work": str(self.folder)}
        self.agent.answer = lambda call: reply if call.op is Op.CREATING else {"ok": "heard"}

    def stand(self, state, held=True):
        """What the agent says of everybody's state from now on."""
        say = {"say": f"it is {state}"} if held else {}
        known = {"ok": "known", "held": "yes" if held else "no", "state": state, **say}
        alive = {"ok": "answered", "passed": "yes", "say": f"alive: it is {state}"}

        def answer(call):
            if call.op is Op.PROBE:
                return alive if held else agree(call)
            return known if call.op is Op.STATE else {"ok": "heard"}

        self.agent.answer = answer


@pytest.fixture
def box(runtime):
    with tempfile.TemporaryDirectory(prefix="kyb-") as name:
        folder = Path(name)
        runc = folder / "runc"
        runc.write_text(_RUNC)
        runc.chmod(0o755)
        me = Path("/proc/self/stat").read_text()
        made = Box(runtime, folder, RuntimeListener(folder / "runtime.sock"))
        made.configure(runc=runc, socket=folder / "runtime.sock", agent_wait="0.3")
        made.environment = {
            "PATH": os.environ["PATH"],
            "KYB_RUNTIME_CONF": str(folder / "runtime.conf"),
            "BOX": name,
            "CID": ID,
            "INIT": str(os.getpid()),
            "STARTED": me[me.rfind(")") + 2 :].split()[19],
        }
        with made.agent:
            yield made
