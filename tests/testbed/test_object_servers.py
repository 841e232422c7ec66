"""Real object servers, side by side."""

from contextlib import ExitStack
from pathlib import Path

from testbed.objectserver import ObjectServer


def test_two_run_beside_each_other(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(ObjectServer.start(tmp_path / name)) for name in ("one", "two")
        ]
        for server in servers:
            server.make_bucket("kyb")
