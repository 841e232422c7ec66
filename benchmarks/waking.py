"""
How long a client of a parked model waits beyond the resume, and what a running model pays.

    .venv/bin/python -m benchmarks.waking [--wakes 40] [--rounds 5] [--parked 100] [--no-caddy]

In one run, on one machine, as root: the real agent and the simulated GPU. A wake is timed from the
client's first byte to the first byte of the answer, at a model in a network namespace of its own,
as pods have them; the resume is the agent's own figure for it, and what the model takes to answer
is told by asking it once more at once. A running model is asked in four ways, in turns: directly
while nobody looks at its sockets, directly while the agent does (wake on connect), through the
activator, through plain Caddy. The watch of many parked pods is timed by the processor time of a
process that does nothing else.
"""

import argparse
import json
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

from benchmarks.harness import proxies, report
from benchmarks.harness.proxies import Way
from kybernate.model.workload import State
from kybernate.testing.agentnode import AgentNode, Pod, wait_for
from nodeagent.linux import processes
from nodeagent.probing.netns import Namespaces, Process, connect

PROFILES = """\
profiles:
  - {name: gpu-1x-seat, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 6}
"""
_ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
_MODEL = ("testbed.models", "serve")
_AT_ONCE = ("benchmarks.harness.asking", "serve")
_ASK = b"POST /predict HTTP/1.1\r\nHost: model\r\nContent-Length: 0\r\n\r\n"


def main() -> None:
    """Measure, print."""
    asked = _arguments()
    if os.geteuid():
        sys.exit("network namespaces are made by root only")
    program = proxies.caddy_program() if asked.caddy else None
    wakes = _wakes(asked.wakes)
    running = _running(asked, program)
    cost = _cost_of_watching(asked.parked)
    beyond = [whole - resume for whole, resume, _ in wakes]
    added = [whole - resume - again for whole, resume, again in wakes]
    rows = [
        ["parked: first byte to first byte", *_spread([whole for whole, _, _ in wakes])],
        ["parked: the resume in it", *_spread([resume for _, resume, _ in wakes])],
        ["parked: beyond the resume", *_spread(beyond)],
        ["the same model asked again at once", *_spread([again for _, _, again in wakes])],
        ["parked: beyond the resume and that answer", *_spread(added)],
        *([f"running: {way}", *_shown(one)] for way, one in running.items()),
    ]
    report.table("Waking on connect (milliseconds)", ["", "p50", "p95", "p99"], rows)
    sys.stdout.write(f"{asked.parked} parked pods are watched by {cost:.2%} of a core\n")
    direct = running["direct"]
    report.last_line(
        "bench-wake",
        {"running_over_direct_p50": running["wake on connect"]["p50"] / direct["p50"]},
        {
            "first_byte_after_resume_p50": report.middle(beyond),
            "first_byte_after_resume_p95": report.percentile(beyond, 0.95),
            "added_to_resume_and_answer_p50": report.middle(added),
            "added_to_resume_and_answer_p95": report.percentile(added, 0.95),
            "running_direct_p50": direct["p50"],
            **_added(running),
        },
        watching={"parked": asked.parked, "of_a_core": round(cost, 4)},
    )


def _shown(one: proxies.Found) -> list[str]:
    return [f"{one[part] * 1e3:.3f}" for part in ("p50", "p95", "p99")]


def _added(running: dict[str, proxies.Found]) -> dict[str, float]:
    """What a proxy adds to asking directly, seconds."""
    return {
        f"{way}_added_{part}": running[way][part] - running["direct"][part]
        for way in ("activator", "caddy")
        if way in running
        for part in ("p50", "p99")
    }


# What follows a park (record, events, statuses) is over then: who asks in that moment shares the
# processors with it, and waited for 10 ms more here.
_SETTLED_S = 0.3


def _wakes(count: int) -> list[tuple[float, float, float]]:
    """Seconds from the first byte to the answer's, of the resume in it, and from first byte to
    first byte of the same request to the same model, asked once more while it runs."""
    with _node() as node, ExitStack() as kept:
        pod, line = _model(node), None
        found = []
        for number in range(count):
            with _agent(node) as agent:
                assert agent.park(pod.key).ok
            time.sleep(_SETTLED_S)
            if number % 2 == 0 or line is None:  # every other connection is older than the park
                line = kept.enter_context(_connect(pod))
            whole = _ask(line)
            node.await_state(pod, State.ACTIVE)
            resume = _resume_seconds(node, number + 1)
            found.append((whole, resume, _ask(line)))
        return found


def _running(asked: Any, program: Path | None) -> dict[str, proxies.Found]:
    """A model that answers at once, asked in each way. Two nodes: at one nobody looks. Both are in
    the host's network, where a look is dearest."""
    with ExitStack() as kept:
        folder = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="kyb-")))
        blind = kept.enter_context(_node("false", own_networks=False, serve=_AT_ONCE))
        seeing = kept.enter_context(_node("true", own_networks=False, serve=_AT_ONCE))
        port = int(_model(seeing)._port())
        ways = {
            "direct": Way(int(_model(blind)._port())),
            "wake on connect": Way(port),
            "activator": kept.enter_context(proxies.activator(folder, port)),
        }
        if program is not None:
            ways["caddy"] = kept.enter_context(proxies.caddy(program, folder, port))
        return proxies.rounds(ways, 1, asked.rounds, asked.seconds)


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
def _node(
    looks: str = "true", own_networks: bool = True, serve: tuple[str, ...] = _MODEL
) -> Iterator[AgentNode]:
    with tempfile.TemporaryDirectory(prefix="kyb-") as folder:
        flags = [f"--wake-on-connect={looks}"]
        with AgentNode(
            Path(folder), profiles=PROFILES, flags=flags, own_networks=own_networks, serve=serve
        ) as node:
            node.start_agent()
            yield node


def _model(node: AgentNode) -> Pod:
    pod = node.start_pod("model", "G0/0")
    node.await_state(pod, State.ACTIVE)
    wait_for(pod._port, "it serves")
    return pod


@contextmanager
def _agent(node: AgentNode) -> Iterator[Any]:
    from kybernate.clients.agents import Agent

    with Agent.on_node(node.socket) as agent:
        yield agent


def _connect(pod: Pod) -> socket.socket:
    pid = pod.process.pid
    process = Process(pid, processes.started(pid) or 0)
    line = connect(Namespaces(), process, "127.0.0.1", int(pod._port()), 60.0)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _ask(line: socket.socket) -> float:
    """One request, until the whole answer is here; seconds to its first byte."""
    began, found, first = time.perf_counter(), b"", 0.0
    line.sendall(_ASK)
    while (end := found.find(b"\r\n\r\n")) < 0:
        found += line.recv(65536)
        first = first or time.perf_counter() - began
    size = int(found[:end].partition(b"Content-Length: ")[2].split(b"\r")[0])
    while len(found) < end + 4 + size:
        found += line.recv(65536)
    assert found.startswith(b"HTTP/1.1 200"), found
    return first


def _resume_seconds(node: AgentNode, count: int) -> float:
    """Of the last of so many resumes, by the agent's own word."""

    def told() -> list[str]:
        lines = node.agent_log.splitlines()
        return [line for line in lines if '"reason":"Resumed"' in line]

    wait_for(lambda: len(told()) >= count, "it is told")
    return float(json.loads(told()[-1])["seconds"])


def _spread(seconds: list[float]) -> list[str]:
    shares = (0.5, 0.95, 0.99)
    return [f"{report.percentile(seconds, share) * 1e3:.2f}" for share in shares]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else "")
    parser.add_argument("--wakes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--parked", type=int, default=100)
    parser.add_argument("--caddy", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
