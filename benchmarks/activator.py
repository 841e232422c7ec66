"""
What the activator adds to a request for a running model, against asking the model directly.

    .venv/bin/python -m benchmarks.activator [--rounds 5] [--seconds 2] [--clients 1,8,32]

In one run, on one machine: a model that answers at once, the real activator in front of it (its API
server is in memory and served over HTTP), and a load generator, three processes. Rounds alternate
between direct and through the activator; each figure is the median of its rounds. The OpenAI field
`model` of every body is read to find the model, which is the dearest of the three ways.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.harness import proxies, report
from benchmarks.harness.proxies import Found, Way


def main() -> None:
    """Measure, print."""
    asked = _arguments()
    program = proxies.caddy_program() if asked.caddy else None
    with ExitStack() as kept:
        folder = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="kyb-activator-")))
        port = kept.enter_context(proxies.model())
        ways = {
            "direct": Way(port),
            "activator": kept.enter_context(proxies.activator(folder, port)),
        }
        if program is not None:
            ways["caddy"] = kept.enter_context(proxies.caddy(program, folder, port))
        found = {
            clients: proxies.rounds(ways, clients, asked.rounds, asked.seconds)
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


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="bench-activator", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--caddy", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--clients", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32]
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
