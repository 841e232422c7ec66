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
    # A call is one try; whoever wants more tries again. With gRPC's own retries one stream in two
    # hundred that is begun while its server ends hangs for ever, past its deadline (gRPC 1.85;
    # grpc/grpc#41036 is of the kind).
    ("grpc.enable_retries", 0),
)
