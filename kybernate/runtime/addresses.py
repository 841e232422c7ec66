"""
Addresses to listen on, as settings have them: `:8443`, `127.0.0.1:0`, `[::1]:9090`.
"""

EXPECTED = "HOST:PORT, like :8443 or 127.0.0.1:9090"


def parse_listen(text: str) -> tuple[str, int]:
    """(host, port); an empty host means every address. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(EXPECTED)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(EXPECTED)
    return host, int(port)
