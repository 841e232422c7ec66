"""
`python -m testbed.models serve --vram 40Gi --port 8080`
`python -m testbed.models train --vram 40Gi --steps 100 --step-seconds 0.1`

Exit codes: 0 ended as asked, 1 the GPU refused or contents were damaged, 2 the flags are wrong.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence

from kybernate.api.quantity import parse_bytes
from kybernate.clients.errors import Refused, Retry
from kybernate.runtime.stopping import stop_event
from testbed.models.serve import Model, server
from testbed.models.train import train
from testbed.models.weights import NoGpu, Weights


def main(argv: Sequence[str]) -> int:
    """Load the weights, then serve or train."""
    flags = _flags().parse_args(argv)
    try:
        weights = Weights.load(flags.vram, os.environ)
        _say(f"loaded {flags.vram} bytes")
        return _serve(weights, flags) if flags.kind == "serve" else _train(weights, flags)
    except (NoGpu, Refused, Retry, OSError) as fault:
        print(f"testbed.models: {type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
        return 1


def _serve(weights: Weights, flags: argparse.Namespace) -> int:
    stop = stop_event()
    lost = threading.Event()
    model = Model(weights, os.environ)
    with server(model, flags.address, flags.port) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        threading.Thread(target=_watch, args=(weights, lost, stop), daemon=True).start()
        host, port = listening.server_address[:2]
        _say(f"serving on {host!s}:{port}")
        stop.wait()
        listening.shutdown()
    if lost.is_set():
        raise NoGpu("the context ended")
    weights.attachment.close()
    return 0


def _watch(weights: Weights, lost: threading.Event, stop: threading.Event) -> None:
    """A server without its context is of no use: let it be started anew."""
    weights.attachment.wait_lost()
    lost.set()
    stop.set()


def _train(weights: Weights, flags: argparse.Namespace) -> int:
    whole = train(weights, flags.steps, flags.step_seconds, _say)
    weights.attachment.close()
    return 0 if whole else 1


def _say(text: str) -> None:
    print(text, flush=True)


def _size(text: str) -> int:
    try:
        size = parse_bytes(text)
    except ValueError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from wrong
    if size <= 0:
        raise argparse.ArgumentTypeError("a size of more than 0")
    return size


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed.models", description="workloads to try with")
    kinds = parser.add_subparsers(dest="kind", required=True)
    serving = kinds.add_parser("serve", help="a model server")
    serving.add_argument("--address", default=os.environ.get("POD_IP", "127.0.0.1"))
    serving.add_argument("--port", type=int, default=8080)
    training = kinds.add_parser("train", help="a trainer that ends by itself")
    training.add_argument("--steps", type=int, default=100)
    training.add_argument("--step-seconds", type=float, default=0.1)
    for kind in (serving, training):
        kind.add_argument("--vram", type=_size, required=True, help="like 40Gi, over all cards")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
