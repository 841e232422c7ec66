"""How the device is reached: one channel over its unix socket."""

from pathlib import Path

import grpc

from kybernate.clients.channels import FOUND_AGAIN

_OPTIONS = (
    ("grpc.default_authority", "localhost"),  # gRPC would else send the socket's path as the host
    *FOUND_AGAIN,
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a closed channel leaves no connection behind
)


def open_channel(address: str | Path) -> grpc.Channel:
    """`address` is a path, or `unix://` and a path."""
    path = str(address).removeprefix("unix://")
    return grpc.insecure_channel(f"unix://{Path(path).absolute()}", options=_OPTIONS)
