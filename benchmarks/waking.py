"""
How long a client of a parked model waits beyond the resume, and what a running model pays.

    .venv/bin/python -m benchmarks.waking [--wakes 30] [--rounds 6] [--requests 200] [--parked 100]

In one run, on one machine, as root: the real agent and the simulated GPU, models in network
namespaces of their own, as pods have them. A wake is timed from the client's first byte to the
first byte of the answer; the resume is the agent's own figure for it. Running models are asked
directly in rounds that alternate between an agent that looks at sockets and one that does not.
The watch of many parked pods is timed by the processor time of a process that does nothing else.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import report
from kybernate.model.workload import State
from kybernate.testing.agentnode import AgentNode, Pod, wait_for
from nodeagent.linux import processes
from nodeagent.probing.netns import Namespaces, Process, connect

PROFILES = """\
profiles:
  - {name: gpu-1x-seat, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 6}
"""
_ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
_ASK = b"POST /predict HTTP/1.1\r\nHost: model\r\nContent-Length: 0\r\n\r\n"


class Nodes(AgentNode):
    """Containers have a network of their own."""

    def _run(
        self, argv: list[str], log: str, environment: dict[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        return super()._run([*_ALONE, *argv] if argv[0] == "/bin/sh" else argv, log, environment)


def main() -> None:
    """Measure, print."""
    asked = _arguments()
    if os.geteuid():
        sys.exit("network namespaces are made by root only")
    wakes = _wakes(asked.wakes)
    direct, watched = _running(asked.rounds, asked.requests)
    cost = _cost_of_watching(asked.parked)
    rows = [
        ["first byte to answer, parked", *_spread([whole for whole, _ in wakes])],
        ["beyond the resume", *_spread([whole - resume for whole, resume in wakes])],
        ["a request, nobody looks", *_spread(direct)],
        ["a request, the agent looks", *_spread(watched)],
    ]
    report.table("Waking on connect (milliseconds)", ["", "p50", "p95", "p99"], rows)
    sys.stdout.write(f"{asked.parked} parked pods are watched by {cost:.2%} of a core\n")
    beyond = [whole - resume for whole, resume in wakes]
    report.last_line(
        "bench-wake",
        {"running_over_direct_p50": report.middle(watched) / report.middle(direct)},
        {
            "first_byte_after_resume_p50": report.middle(beyond),
            "first_byte_after_resume_p95": report.percentile(beyond, 0.95),
            "running_direct_p50": report.middle(direct),
            "running_watched_p50": report.middle(watched),
        },
        watching={"parked": asked.parked, "of_a_core": round(cost, 4)},
    )


def _wakes(count: int) -> list[tuple[float, float]]:
    """Seconds from the first byte to the answer's, and of the resume in it."""
    with _node() as node, ExitStack() as kept:
        pod, line = _model(node), None
        found = []
        for number in range(count):
            with _agent(node) as agent:
                assert agent.park(pod.key).ok
            if number % 2 == 0 or line is None:  # every other connection is older than the park
                line = kept.enter_context(_connect(pod))
            began = time.perf_counter()
            _ask(line)
            whole = time.perf_counter() - began
            node.await_state(pod, State.ACTIVE)
            found.append((whole, _resume_seconds(node, number + 1)))
        return found


def _running(rounds: int, requests: int) -> tuple[list[float], list[float]]:
    """Seconds of requests to a running model: nobody looks at its sockets, and the agent does."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        looks = bool(number % 2)
        with _node("true" if looks else "false") as node:
            pod = _model(node)
            with _connect(pod) as line:
                for _ in range(requests):
                    began = time.perf_counter()
                    _ask(line)
                    found[looks].append(time.perf_counter() - began)
    return found[False], found[True]


def _cost_of_watching(parked: int) -> float:
    """Part of a core that it takes to have that many parked pods watched, while nobody comes."""
    with ExitStack() as kept:
        pids = [kept.enter_context(_alone()) for _ in range(parked)]
        argv = [sys.executable, "-m", "benchmarks.harness.watching", *map(str, pids)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return float(done.stdout)


@contextmanager
def _alone() -> Iterator[int]:
    """A process that listens in a network namespace of its own."""
    code = "import socket, signal; s = socket.create_server(('', 8000)); signal.pause()"
    running = subprocess.Popen([*_ALONE, sys.executable, "-S", "-c", code])
    try:
        yield running.pid
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()


@contextmanager
def _node(looks: str = "true") -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory(prefix="kyb-") as folder:
        flags = [f"--wake-on-connect={looks}"]
        node = Nodes(Path(folder), profiles=PROFILES, flags=flags)
        with node:
            node.start_agent()
            yield node


def _model(node: Nodes) -> Pod:
    pod = node.start_pod("model", "G0/0")
    node.await_state(pod, State.ACTIVE)
    wait_for(pod._port, "it serves")
    return pod


@contextmanager
def _agent(node: Nodes) -> Iterator[Any]:
    from kybernate.clients.agents import Agent

    with Agent.on_node(node.socket) as agent:
        yield agent


def _connect(pod: Pod) -> socket.socket:
    pid = pod.process.pid
    process = Process(pid, processes.started(pid) or 0)
    line = connect(Namespaces(), process, "127.0.0.1", int(pod._port()), 60.0)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _ask(line: socket.socket) -> None:
    """One request, until the whole answer is here."""
    line.sendall(_ASK)
    found = b""
    while (end := found.find(b"\r\n\r\n")) < 0:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # the model sends in two parts
        found += line.recv(65536)
    size = int(found[:end].partition(b"Content-Length: ")[2].split(b"\r")[0])
    while len(found) < end + 4 + size:
        found += line.recv(65536)
    assert found.startswith(b"HTTP/1.1 200"), found


def _resume_seconds(node: Nodes, count: int) -> float:
    """Of the last of so many resumes, by the agent's own word."""

    def told() -> list[str]:
        lines = node.agent_log.splitlines()
        return [line for line in lines if '"reason":"Resumed"' in line]

    wait_for(lambda: len(told()) >= count, "it is told")
    return float(told()[-1].partition(" in ")[2].partition(" s")[0])


def _spread(seconds: list[float]) -> list[str]:
    shares = (0.5, 0.95, 0.99)
    return [f"{report.percentile(seconds, share) * 1e3:.2f}" for share in shares]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else "")
    parser.add_argument("--wakes", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--parked", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    main()
