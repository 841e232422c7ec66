"""
`python -m testbed.gpu --socket PATH --card "NVIDIA H100 80GB HBM3=80Gi" [--card ...]`

Serves until SIGTERM or SIGINT. Prints one line when it can be called.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kybernate.api.errors import Malformed
from kybernate.api.profiles import load_inventory
from kybernate.model.gpu import Gpu
from kybernate.runtime.stopping import stop_event
from testbed.gpu.card import DEFAULT_BUS, Card, parse_cards
from testbed.gpu.device import Device
from testbed.gpu.service import gates_of, serve

_STOP_GRACE_S = 1.0


def main(argv: Sequence[str]) -> int:
    """Exit codes: 0 stopped as asked, 2 the flags or the file cannot be read."""
    flags = _flags().parse_args(argv)
    try:
        gpus = _gpus(flags)
    except (Malformed, OSError, ValueError) as fault:
        print(f"testbed.gpu: {fault}", file=sys.stderr)
        return 2
    stop = stop_event()
    cards = [Card.of(gpu, flags.bus) for gpu in gpus]
    device = Device(cards, scale=flags.scale, gates=gates_of(flags.socket))
    server = serve(device, flags.socket, flags.driver)
    print(f"simulated GPUs: {len(gpus)} on {flags.socket}", flush=True)
    stop.wait()
    server.stop(_STOP_GRACE_S).wait()
    flags.socket.unlink(missing_ok=True)
    return 0


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed.gpu", description="GPUs that are not there")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to serve on")
    parser.add_argument("--card", action="append", default=[], metavar="PRODUCT=SIZE")
    parser.add_argument("--cards", type=Path, help="YAML file with a gpus: section, as a profile's")
    parser.add_argument("--name", default="node", help="makes the cards' UUIDs (default: node)")
    parser.add_argument("--scale", type=int, default=1024, help="pretended bytes per real one")
    parser.add_argument("--bus", type=float, default=DEFAULT_BUS, help="bytes/s each way per card")
    parser.add_argument("--driver", default="sim-1", help="the driver version it shows")
    return parser


def _gpus(flags: argparse.Namespace) -> tuple[Gpu, ...]:
    if flags.scale <= 0 or flags.bus <= 0:
        raise ValueError("--scale and --bus must be more than 0")
    if flags.cards:
        return load_inventory(flags.cards.read_text(), name=flags.name)
    if not flags.card:
        raise ValueError("no cards: give --card PRODUCT=SIZE or --cards FILE")
    return parse_cards(flags.card, flags.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
