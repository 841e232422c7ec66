"""
Pods a second under the real kube-scheduler: without an extender, with one that does nothing, and
with Kybernate's. `make bench-extender`, or `python -m benchmarks.extender --nodes 5000`.

Fair: one control plane, the same nodes and pods, rounds interleaved in one run; the scheduler's
configuration differs in the extender only, and each extender runs in its own rounds only.
Kybernate's is the shipped process under its ServiceAccount, over TLS, with OPA and the shipped
policies beside it; it writes its events and statuses while it is measured.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import urllib3
import yaml

from benchmarks.harness import lightnodes, report
from benchmarks.harness.burst import Burst
from controller import bundles
from kybernate.clients.kube import Kube
from policies import shipped
from testbed import assets, ports
from testbed.controlplane import ControlPlane
from testbed.opa import Opa
from testbed.processes import Processes

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "manifests"
NONE, IDLE, OURS = "none", "do-nothing", "kybernate"
# Nobody renews the light nodes' leases: the controller would mark them all lost in mid-run.
_FLAGS = {"kube-controller-manager": ["--controllers=*,-node-lifecycle-controller"]}
_IDLE_S = 0.5  # a process that used no more than a tenth of this much time in it is idle


@dataclass
class Measured:
    """One variant over its rounds."""

    rates: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)  # seconds a pod, of the extender
    verbs: dict[str, list[float]] = field(default_factory=lambda: {"filter": [], "prioritize": []})
    together: list[float] = field(default_factory=list)  # filter + prioritize of one pod
    busy: list[float] = field(default_factory=list)  # the same, on a processor
    threads: dict[str, float] = field(default_factory=dict)  # processor seconds a pod, last round


class Bench:
    """One control plane with light nodes."""

    def __init__(self, plane: ControlPlane, work: Path, opa: Opa) -> None:
        self._plane, self._work, self._opa = plane, work, opa
        self._kube = Kube.from_kubeconfig(plane.admin_kubeconfig)
        self._pool = urllib3.PoolManager(ca_certs=str(plane.ca_file), timeout=30.0)
        self._rounds = 0
        self._tls = self._certificates()

    def prepare(self, nodes: int) -> None:
        """Types, roles, nodes."""
        for component in ("namespace", "crd", "rbac"):
            self._plane.kubectl("apply", "-k", str(MANIFESTS / "components" / component))
        self._plane.kubectl("wait", "--for=condition=Established", "crd", "--all")
        lightnodes.register(self._kube, nodes)

    def round(self, variant: str, count: int, into: Measured) -> float:
        """One burst; pods a second."""
        self._rounds += 1
        burst = Burst(self._kube, f"round-{self._rounds}", count)
        with self._extender(variant) as url, burst.follow():
            burst.create()
            if url:
                before = self._until_idle(url)
            self._plane.start_scheduler(_configuration(url, self._plane))
            rate = burst.pods_per_second()
            self._plane.stop_scheduler()
            if url:
                _collect(self._until_idle(url), before, count, into)
        burst.delete()
        into.rates.append(rate)
        return rate

    @contextmanager
    def _extender(self, variant: str) -> Iterator[str]:
        if variant == NONE:
            yield ""
            return
        url = f"https://{ports.LOOPBACK}:{ports.guess()}"
        with Processes(self._work / f"extender-{self._rounds}") as processes:
            processes.start(
                "extender",
                [sys.executable, "-m", "benchmarks.harness.timed", *self._arguments(variant, url)],
                ready=lambda: self._ready(url),
                within=120.0,
                env={"PYTHONPATH": str(ROOT)},
            )
            yield url

    def _arguments(self, variant: str, url: str) -> list[str]:
        kubeconfig = self._plane.service_account_kubeconfig("kyb-system", "kyb-extender")
        return [
            "ours" if variant == OURS else "idle",
            f"--listen={url.removeprefix('https://')}",
            f"--metrics-listen={ports.LOOPBACK}:0",
            f"--kubeconfig={kubeconfig}",
            f"--tls-dir={self._tls}",
            f"--opa-url={self._opa.url}",
        ]

    def _ready(self, url: str) -> bool:
        try:
            return bool(self._pool.request("GET", f"{url}/readyz").status == 200)
        except urllib3.exceptions.HTTPError:
            return False

    def _until_idle(self, url: str) -> dict[str, Any]:
        """What it has to tell, once it has told the cluster everything. Its timings are cut off."""
        timings: list[Any] = []
        used = -1.0
        while True:
            told = orjson.loads(self._pool.request("GET", f"{url}/timings").data)
            timings += told["timings"]
            if told["processor"] - used < _IDLE_S / 10:
                return {**told, "timings": timings}
            used = told["processor"]
            time.sleep(_IDLE_S)

    def _certificates(self) -> Path:
        pair = self._plane.credentials.authority.issue(
            "extender", common_name="kyb-extender", addresses=[ports.LOOPBACK]
        )
        tls = self._work / "tls"
        tls.mkdir()
        (tls / "tls.crt").write_bytes(pair.certificate.read_bytes())
        (tls / "tls.key").write_bytes(pair.key.read_bytes())
        (tls / "ca.crt").write_bytes(self._plane.ca_file.read_bytes())
        return tls


def _configuration(url: str, plane: ControlPlane) -> dict[str, Any]:
    """The shipped example as the default scheduler, without its limits; extender or not."""
    config: dict[str, Any] = yaml.safe_load((MANIFESTS / "examples/scheduler.yaml").read_text())
    config["clientConnection"] = {"qps": 5000, "burst": 5000}
    config["profiles"][0]["schedulerName"] = "default-scheduler"
    extender = config.pop("extenders")[0]
    if url:
        extender |= {"urlPrefix": url, "tlsConfig": {"caFile": str(plane.ca_file)}}
        config["extenders"] = [extender]
    return config


def _collect(told: dict[str, Any], before: dict[str, Any], count: int, into: Measured) -> None:
    into.processor.append((told["processor"] - before["processor"]) / count)
    began = before["threads"]
    into.threads = {
        name: (used - began.get(name, 0.0)) / count for name, used in told["threads"].items()
    }
    filtered = busy = 0.0
    for verb, seconds, used in told["timings"]:
        into.verbs[verb].append(seconds)
        if verb == "filter":
            filtered, busy = seconds, used
        else:
            into.together.append(filtered + seconds)
            into.busy.append(busy + used)


def _run(nodes: int, pods: int, rounds: int) -> dict[str, Measured]:
    measured = {variant: Measured() for variant in (NONE, IDLE, OURS)}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-extender-")))
        opa = stack.enter_context(_opa(work))
        plane = stack.enter_context(ControlPlane.start(work / "plane", _say, flags=_FLAGS))
        bench = Bench(plane, work, opa)
        _say(f"registering {nodes} light nodes")
        bench.prepare(nodes)
        for number in range(rounds):
            # Every other round the other way around, so that none is always measured first.
            for variant in list(measured)[:: -1 if number % 2 else 1]:
                rate = bench.round(variant, pods, measured[variant])
                _say(f"round {number + 1} of {rounds}, {variant}: {rate:.0f} pods/s")
    return measured


@contextmanager
def _opa(work: Path) -> Iterator[Opa]:
    packed = work / "kyb.tar.gz"
    program = assets.ensure(["opa"])["opa"]
    packed.write_bytes(bundles.build(shipped.files(), program).content)
    with Opa.start(work / "opa", bundle=packed) as opa:
        yield opa


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _print(measured: dict[str, Measured], nodes: int, pods: int) -> None:
    rows = [
        [
            variant,
            f"{report.middle(found.rates):.0f}",
            " ".join(f"{rate:.0f}" for rate in found.rates),
            _milliseconds(report.middle(found.processor)),
        ]
        for variant, found in measured.items()
    ]
    columns = ["extender", "pods/s", "rounds", "CPU ms/pod"]
    report.table(f"{nodes} nodes, {pods} pods a round", columns, rows)
    timed = [
        [f"{variant}, {what}", *(_milliseconds(report.percentile(values, p)) for p in (0.5, 0.99))]
        for variant, found in measured.items()
        for what, values in _timings(found)
        if values
    ]
    report.table("In the extender, milliseconds", ["answer", "p50", "p99"], timed)


def _timings(found: Measured) -> list[tuple[str, list[float]]]:
    """Elapsed, and on a processor: the difference is waiting for one, which others cause."""
    both = "filter + prioritize of a pod"
    return [*found.verbs.items(), (both, found.together), (f"{both}, on a processor", found.busy)]


def _print_threads(found: Measured) -> None:
    """Where the extender's processor time went."""
    used = sorted(found.threads.items(), key=lambda pair: -pair[1])
    rows = [[name, _milliseconds(seconds)] for name, seconds in used if seconds >= 1e-5]
    report.table("Kybernate's threads, last round", ["thread", "CPU ms/pod"], rows)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}" if seconds else "-"


def _last_line(measured: dict[str, Measured], nodes: int) -> None:
    rate = {variant: report.middle(found.rates) for variant, found in measured.items()}
    ours = measured[OURS]
    report.last_line(
        "bench-extender",
        {
            f"of_none_{nodes}": rate[OURS] / rate[NONE],
            f"of_noop_{nodes}": rate[OURS] / rate[IDLE],
        },
        {
            "filter_p50": report.percentile(ours.verbs["filter"], 0.5),
            "filter_p99": report.percentile(ours.verbs["filter"], 0.99),
            "prioritize_p50": report.percentile(ours.verbs["prioritize"], 0.5),
            "prioritize_p99": report.percentile(ours.verbs["prioritize"], 0.99),
            "filter_prioritize_p99": report.percentile(ours.together, 0.99),
            "filter_prioritize_cpu_p99": report.percentile(ours.busy, 0.99),
            f"filter_prioritize_p99_{nodes}": report.percentile(ours.together, 0.99),
            "cpu_per_pod": report.middle(ours.processor),
        },
        pods_per_second={variant: round(value, 1) for variant, value in rate.items()},
    )


def main(argv: Sequence[str]) -> int:
    """Run it; the exit status is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="bench-extender", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=1000, help="a round")
    parser.add_argument("--rounds", type=int, default=3, help="of each variant")
    given = parser.parse_args(argv)
    measured = _run(given.nodes, given.pods, given.rounds)
    _print(measured, given.nodes, given.pods)
    _print_threads(measured[OURS])
    _last_line(measured, given.nodes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
