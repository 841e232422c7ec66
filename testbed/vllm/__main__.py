"""
`python -m testbed.vllm --model NAME --vram 40Gi --port 8000 --enable-sleep-mode`

The development endpoints are there with VLLM_SERVER_DEV_MODE=1, as vLLM's.
Exit codes: 0 ended as asked, 1 the GPU refused or is gone, 2 the flags are wrong.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence

from kybernate.api import names
from kybernate.api.quantity import parse_bytes
from kybernate.clients.errors import Refused, Retry
from kybernate.clients.simgpu import Attachment
from kybernate.runtime.stopping import stop_event
from testbed.vllm.engine import Engine
from testbed.vllm.routes import Serving, server


def main(argv: Sequence[str]) -> int:
    """Load, then serve until told to stop."""
    flags = _flags().parse_args(argv)
    try:
        return _serve(flags)
    except (KeyError, Refused, Retry, OSError) as fault:
        print(f"testbed.vllm: {type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
        return 1


def _serve(flags: argparse.Namespace) -> int:
    stop, lost = stop_event(), threading.Event()
    cards = [card for card in os.environ[names.ENV_CUDA].split(",") if card]
    with Attachment(os.environ[names.ENV_DEVICE_SOCKET], os.getpid(), cards) as attachment:
        engine = Engine(attachment, cards, flags.vram, os.environ.get("POD_NAME", flags.model))
        engine.check_seconds = flags.check_seconds
        print(f"loaded {flags.vram} bytes", flush=True)
        with server(engine, _serving(flags), flags.host, flags.port) as listening:
            threading.Thread(target=listening.serve_forever, daemon=True).start()
            threading.Thread(target=_watch, args=(attachment, lost, stop), daemon=True).start()
            host, port = listening.server_address[:2]
            print(f"serving on {host!s}:{port}", flush=True)
            stop.wait()
            listening.shutdown()
    return int(lost.is_set())


def _watch(attachment: Attachment, lost: threading.Event, stop: threading.Event) -> None:
    """A server without its context is of no use: let it be started anew."""
    attachment.wait_lost()
    if not stop.is_set():
        lost.set()
    stop.set()


def _serving(flags: argparse.Namespace) -> Serving:
    return Serving(
        model=flags.served_model_name or flags.model,
        version=flags.version,
        sleep_mode=flags.enable_sleep_mode,
        dev_mode=os.environ.get("VLLM_SERVER_DEV_MODE") == "1",
        token_seconds=flags.token_seconds,
        wake_seconds=flags.wake_seconds,
    )


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed.vllm", description="a stand-in for vllm serve")
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name")
    parser.add_argument("--host", default=os.environ.get("POD_IP", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--vram", type=parse_bytes, required=True, help="like 40Gi")
    parser.add_argument("--enable-sleep-mode", action="store_true")
    parser.add_argument("--version", default="0.14.0", help="what /version says")
    parser.add_argument("--token-seconds", type=float, default=0.002)
    parser.add_argument("--check-seconds", type=float, default=0.0, help="between two looks")
    parser.add_argument("--wake-seconds", type=float, default=0.0)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
