"""A real OPA, with policies from a folder and from a server it polls."""

import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import urllib3

from testbed.opa import Opa
from testbed.processes import ProcessFailed

pytestmark = pytest.mark.controlplane

POLICY = "package demo\n\nallow if input.seats > 0\n"


@pytest.fixture
def bundle(tmp_path: Path, assets: dict[str, Path]) -> Path:
    """A folder of policies."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "demo.rego").write_text(POLICY)
    return folder


@pytest.fixture
def bundle_server(bundle: Path) -> Iterator[str]:
    """The address of a server that serves the same policies as a bundle."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(bundle / "demo.rego", "demo.rego")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(packed.getvalue())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_folder_of_policies_is_served(tmp_path: Path, bundle: Path) -> None:
    with Opa.start(tmp_path / "opa", bundle=bundle) as opa:
        assert _allows(opa, seats=1)
        assert not _allows(opa, seats=0)
        assert opa.log.exists()


def test_two_run_side_by_side(tmp_path: Path, bundle: Path) -> None:
    with (
        Opa.start(tmp_path / "a", bundle=bundle) as one,
        Opa.start(tmp_path / "b", bundle=bundle) as other,
    ):
        assert one.url != other.url
        assert _allows(other, seats=1)


def test_policies_are_polled_from_a_server(tmp_path: Path, bundle_server: str, eventually) -> None:
    config = tmp_path / "opa.json"
    polled = {
        "service": "s",
        "resource": "/b.tar.gz",
        "polling": {"min_delay_seconds": 1, "max_delay_seconds": 2},
    }
    config.write_bytes(
        orjson.dumps({"services": {"s": {"url": bundle_server}}, "bundles": {"b": polled}})
    )
    with Opa.start(tmp_path / "opa", config=config) as opa:
        eventually(opa.has_bundles)
        assert _allows(opa, seats=1)


def test_a_policy_that_does_not_compile_is_told(tmp_path: Path, bundle: Path) -> None:
    (bundle / "demo.rego").write_text("package demo\n\nallow if {\n")
    with pytest.raises(ProcessFailed, match="rego_parse_error"):
        Opa.start(tmp_path / "opa", bundle=bundle)


def _allows(opa: Opa, seats: int) -> bool:
    answer = urllib3.request("POST", f"{opa.url}/v1/data/demo", json={"input": {"seats": seats}})
    return bool(answer.json()["result"].get("allow"))
