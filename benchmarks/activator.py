"""
What the activator adds to a request for a running model, against asking the model directly.

    .venv/bin/python -m benchmarks.activator [--rounds 5] [--seconds 2] [--clients 1,8,32]

In one run, on one machine: a model that answers at once, the real activator in front of it (its API
server is in memory and served over HTTP), and a load generator, three processes. Rounds alternate
between direct and through the activator; each figure is the median of its rounds. The OpenAI field
`model` of every body is read to find the model, which is the dearest of the three ways.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import urllib3

from benchmarks.harness import report
from kybernate.api import names
from kybernate.testing.builders import a_pod
from kybernate.testing.fakehttp import FakeHttp
from kybernate.testing.fakekube import FakeKube
from testbed import ports
from testbed.pki import Authority

MODEL = "llama"
Found = dict[str, float]


def main() -> None:
    """Measure, print."""
    asked = _arguments()
    with (
        tempfile.TemporaryDirectory(prefix="kyb-activator-") as folder,
        _model() as port,
        _activator(Path(folder), port) as (through, asked.process),
    ):
        found = {
            clients: _rounds({"direct": port, "activator": through}, clients, asked)
            for clients in asked.clients
        }
    _show(found)


def _show(found: dict[int, dict[str, Found]]) -> None:
    rows = [
        [f"{clients}", way, f"{one['per_second']:.0f}", f"{one['p50'] * 1e3:.3f}",
         f"{one['p99'] * 1e3:.3f}"]
        for clients, ways in found.items()
        for way, one in ways.items()
    ]  # fmt: skip
    head = ["clients", "way", "requests/s", "p50 ms", "p99 ms"]
    report.table("A running model, directly and through the activator", head, rows)
    few = found[min(found)]
    most = max(ways["activator"]["per_second"] for ways in found.values())
    seconds = {
        f"activator_added_{part}": few["activator"][part] - few["direct"][part]
        for part in ("p50", "p99")
    }
    best = max(ways["direct"]["per_second"] for ways in found.values())
    ratios = {"activator_of_direct": most / best}
    seconds["cpu_per_request"] = min(ways["activator"]["cpu"] for ways in found.values())
    report.last_line("activator", ratios, seconds, requests_per_second=round(most))


def _rounds(ways: dict[str, int], clients: int, asked: Any) -> dict[str, Found]:
    """The medians of each way's rounds, taken in turns."""
    found: dict[str, list[Found]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way, port in ways.items():
            before = _cpu(asked.process)
            one = _load(port, clients, asked.seconds)
            spent = _cpu(asked.process) - before
            found[way].append({**one, "cpu": spent / (one["per_second"] * asked.seconds)})
    return {
        way: {part: median(one[part] for one in rounds) for part in rounds[0]}
        for way, rounds in found.items()
    }


def _cpu(process: int) -> float:
    """Seconds of a core it has used."""
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
def _model() -> Iterator[int]:
    port = ports.guess()
    argv = [sys.executable, "-m", "benchmarks.harness.asking", "serve", f"--port={port}"]
    with _running(argv):
        yield port


@contextmanager
def _activator(folder: Path, port: int) -> Iterator[tuple[int, int]]:
    """In front of a pod that is active and listens at `port`: where it listens, and its pid."""
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
            yield listen, process


def _until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if urllib3.request("GET", url, retries=False, timeout=1.0).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.05)
    raise SystemExit("the activator is not ready")


@contextmanager
def _running(argv: list[str]) -> Iterator[int]:
    process = subprocess.Popen(argv)
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


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="bench-activator", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument(
        "--clients", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32]
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
