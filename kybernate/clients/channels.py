"""How gRPC channels find again whom they lost. Used by whatever keeps a channel open."""

Options = tuple[tuple[str, int], ...]


def found_again(attempt_ms: int = 100) -> Options:
    """Who was started anew is found within a second; gRPC's default pause grows to two minutes.

    `attempt_ms` is how long one attempt may take, handshake included.
    """
    return (
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", attempt_ms),
        ("grpc.max_reconnect_backoff_ms", 1000),
    )
