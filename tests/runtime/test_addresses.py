"""Addresses to listen on."""

import pytest

from kybernate.runtime.addresses import parse_listen


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (":8443", ("", 8443)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:9090", ("::1", 9090)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_host_and_port_are_read(text: str, found: tuple[str, int]) -> None:
    assert parse_listen(text) == found


@pytest.mark.parametrize(
    "text", ["", "8443", "host:", "host:x", ":65536", "::1:80", ":-1", ":８０"]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT, like :8443"):
        parse_listen(text)
