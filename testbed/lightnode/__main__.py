"""
`python -m testbed.lightnode --node N --kubeconfig FILE --work-dir DIR [...]`: one node.
`python -m testbed.lightnode --bulk N --prefix light- --kubeconfig ADMIN`: many that run nothing.
`python -m testbed.lightnode --end-pods --work-dir DIR`: end what a killed one left running.

Prints one line when it is ready. Exit codes: 0 ended as asked, 2 flags cannot be used.
"""

import argparse
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from kybernate.clients.errors import Refused
from kybernate.clients.kube import Kube
from kybernate.runtime import logs
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.stopping import stop_event
from testbed.lightnode.bulk import Bulk
from testbed.lightnode.ending import end_pods
from testbed.lightnode.node import Habits, LightNode, Places
from testbed.lightnode.nodeobject import NodeFacts


def main(argv: Sequence[str]) -> int:
    """See the module's text."""
    parser = _flags()
    flags = parser.parse_args(argv)
    logs.configure("lightnode", flags.log_level)
    if flags.end_pods:
        print(f"ended {end_pods(_needed(parser, flags, 'work_dir'))}", flush=True)
        return 0
    try:
        kube = Kube.from_kubeconfig(_needed(parser, flags, "kubeconfig"))
    except Refused as refused:
        parser.error(str(refused))
    stop = stop_event()
    return _bulk(flags, kube, stop) if flags.bulk else _one(parser, flags, kube, stop)


def _one(
    parser: argparse.ArgumentParser, flags: argparse.Namespace, kube: Kube, stop: threading.Event
) -> int:
    work: Path = _needed(parser, flags, "work_dir")
    places = Places(
        work=work,
        plugin_dir=flags.plugin_dir or work / "device-plugins",
        podresources=flags.podresources_socket or work / "pod-resources" / "kubelet.sock",
        agent=flags.agent_socket or work / "agent.sock",
    )
    facts = NodeFacts(name=str(_needed(parser, flags, "node")), labels=dict(flags.label))
    habits = Habits(facts=facts, restart_after=flags.restart_after)
    node = LightNode(kube, places, habits, SystemClock())
    node.start()
    print(f"light node {flags.node} ready", flush=True)
    stop.wait()
    node.stop()
    return 0


def _bulk(flags: argparse.Namespace, kube: Kube, stop: threading.Event) -> int:
    names = [f"{flags.prefix}{number}" for number in range(flags.bulk)]
    facts = [NodeFacts(name=name, labels=dict(flags.label)) for name in names]
    counts = {name: (count, count) for name, count in flags.resource}
    bulk = Bulk(kube, facts, counts, SystemClock(), flags.heartbeat)
    bulk.register()
    print(f"{flags.bulk} light nodes ready", flush=True)
    bulk.run(stop)
    return 0


def _needed(parser: argparse.ArgumentParser, flags: argparse.Namespace, name: str) -> Path:
    value = getattr(flags, name)
    if value is None:
        parser.error(f"--{name.replace('_', '-')} is needed")
    found: Path = value
    return found


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError("KEY=VALUE")
    return key, value


def _count(text: str) -> tuple[str, int]:
    key, value = _pair(text)
    if not value.isdecimal():
        raise argparse.ArgumentTypeError("RESOURCE=COUNT")
    return key, int(value)


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed.lightnode", description="a kubelet's stand-in")
    parser.add_argument("--node", help="its name")
    parser.add_argument("--kubeconfig", type=Path, help="the node's own client certificate")
    parser.add_argument("--work-dir", type=Path, help="pods, logs, and what must not be forgotten")
    parser.add_argument("--plugin-dir", type=Path, help="default: device-plugins in the work dir")
    parser.add_argument(
        "--podresources-socket", type=Path, help="default: pod-resources/kubelet.sock in there"
    )
    parser.add_argument("--agent-socket", type=Path, help="default: agent.sock in there")
    parser.add_argument("--label", type=_pair, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--restart-after", type=float, default=10.0, help="seconds before a second restart"
    )
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--end-pods", action="store_true", help="end what a killed one left")
    parser.add_argument("--bulk", type=int, default=0, metavar="N", help="register N nodes")
    parser.add_argument("--prefix", default="light-", help="of their names")
    parser.add_argument(
        "--resource", type=_count, action="append", default=[], metavar="RESOURCE=COUNT"
    )
    parser.add_argument("--heartbeat", type=float, default=20.0, help="seconds between Leases")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
