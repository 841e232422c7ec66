"""
What can stand before a running model, as programs, and the load that is put on each in turns.

Used by: `bench-activator`, `bench-wake`. The activator's API server is in memory and served over
HTTP; Caddy is the stock one, built by `testbed.assets`, as `caddy reverse-proxy` without anything.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import urllib3

from kybernate.api import names
from kybernate.testing.builders import a_pod
from kybernate.testing.fakehttp import FakeHttp
from kybernate.testing.fakekube import FakeKube
from testbed import assets, ports
from testbed.pki import Authority

MODEL = "llama"
Found = dict[str, float]


@dataclass(frozen=True, slots=True)
class Way:
    """Where a client asks, and whose processor time counts as its cost; 0: nobody's."""

    port: int
    process: int = 0


def rounds(ways: Mapping[str, Way], clients: int, count: int, seconds: float) -> dict[str, Found]:
    """The medians of each way's rounds, taken in turns; `cpu` is of a core, for one request."""
    found: dict[str, list[Found]] = {way: [] for way in ways}
    for _ in range(count):
        for name, way in ways.items():
            before = _cpu(way.process)
            one = _load(way.port, clients, seconds)
            spent = _cpu(way.process) - before
            found[name].append({**one, "cpu": spent / (one["per_second"] * seconds)})
    return {
        name: {part: median(one[part] for one in all_) for part in all_[0]}
        for name, all_ in found.items()
    }


def _cpu(process: int) -> float:
    """Seconds of a core it has used."""
    if not process:
        return 0.0
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _load(port: int, clients: int, seconds: float) -> Found:
    argv = [f"--port={port}", f"--clients={clients}", f"--seconds={seconds}", f"--model={MODEL}"]
    program = [sys.executable, "-m", "benchmarks.harness.asking", "load", *argv]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: Found = json.loads(done.stdout)
    return found


@contextmanager
def model() -> Iterator[int]:
    """The port of one that answers at once."""
    port = ports.guess()
    argv = [sys.executable, "-m", "benchmarks.harness.asking", "serve", f"--port={port}"]
    with _running(argv):
        yield port


@contextmanager
def activator(folder: Path, port: int) -> Iterator[Way]:
    """In front of a pod that is active and listens at `port`."""
    kube = FakeKube(*_objects(port))
    listen, metrics = ports.guess(), ports.guess()
    tls = _client_tls(folder)
    with FakeHttp(kube) as api:
        argv = [
            sys.executable, "-m", "activator", f"--listen=127.0.0.1:{listen}",
            f"--view-listen=127.0.0.1:{ports.guess()}", f"--metrics-listen=127.0.0.1:{metrics}",
            f"--kubeconfig={api.kubeconfig(folder / 'kubeconfig')}", f"--client-tls-dir={tls}",
        ]  # fmt: skip
        with _running(argv) as process:
            _until_ready(f"http://127.0.0.1:{metrics}/readyz")
            yield Way(listen, process)


def caddy_program() -> Path | None:
    """Built where it is not yet; None, which is said, where it cannot be."""
    try:
        return assets.ensure(["caddy"])["caddy"]
    except (assets.BuildFailed, assets.GoUnavailable, assets.MissingAssets) as problem:
        sys.stderr.write(f"without Caddy, which cannot be had here: {problem}\n")
        return None


@contextmanager
def caddy(program: Path, folder: Path, port: int) -> Iterator[Way]:
    """A plain reverse proxy in front of what listens at `port`."""
    listen = ports.guess()
    argv = [str(program), "reverse-proxy", f"--from=http://:{listen}"]  # for any host
    homes = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with _running([*argv, f"--to=127.0.0.1:{port}"], env={**os.environ, **homes}, **quiet) as one:
        _until_answered(f"http://127.0.0.1:{listen}/")
        yield Way(listen, one)


def _until_ready(url: str) -> None:
    _until_answered(url, 200)


def _until_answered(url: str, status: int = 0) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            found = urllib3.request("GET", url, retries=False, timeout=1.0).status
            if found == status or (not status and found < 500):
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"{url} does not answer")


@contextmanager
def _running(argv: list[str], **how: Any) -> Iterator[int]:
    process = subprocess.Popen(argv, **how)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _client_tls(folder: Path) -> Path:
    authority = Authority(folder / "pki")
    pair = authority.issue("client", common_name=names.ACTIVATOR_CLIENT, addresses=[])
    made = folder / "tls"
    made.mkdir()
    (made / "tls.crt").write_bytes(pair.certificate.read_bytes())
    (made / "tls.key").write_bytes(pair.key.read_bytes())
    (made / "ca.crt").write_bytes(authority.files.certificate.read_bytes())
    return made


def _objects(port: int) -> list[dict[str, Any]]:
    pod = a_pod(MODEL)
    pod["spec"]["nodeName"] = "node-a"
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": port}]
    running = {"name": "model", "state": {"running": {}}}
    pod["status"] = {"phase": "Running", "podIP": "127.0.0.1", "containerStatuses": [running]}
    workload = {
        "kind": "GpuWorkload",
        "metadata": {"name": MODEL, "namespace": "default"},
        "spec": {"podUID": pod["metadata"]["uid"], "resource": "kyb.ai/gpu-1x-seat"},
        "status": {"state": "Active", "since": "2026-01-01T00:00:00Z", "node": "node-a"},
    }
    return [pod, workload]
