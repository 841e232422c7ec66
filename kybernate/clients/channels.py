"""How gRPC channels find again whom they lost. Used by whatever keeps a channel open."""

Options = tuple[tuple[str, int], ...]

# How long one attempt may take, its handshake included: a machine that is busy takes its time.
# Where nobody listens an attempt is refused at once.
_ATTEMPT_MS = 5000
# Who was started anew is found within a second; gRPC's default pause grows to two minutes.
FOUND_AGAIN: Options = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", _ATTEMPT_MS),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
