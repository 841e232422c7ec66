"""
A person edits a number; the next verdict differs.

Real: OPA, which polls; the controller's publication and its server, mutual TLS; the
adapter. Faked: nothing. Waiting is for OPA's next poll, until the revision is the new one.
"""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.bundle_app import bundle_app
from controller.bundles import BundleRefused
from controller.publication import Publication
from controller.serving import BundleServer
from kybernate.api.opa_config import BundleTls, opa_config
from kybernate.clients.opa import OpaPolicy
from kybernate.model.ids import Revision
from kybernate.model.policy import PreemptionVerdict
from kybernate.runtime.clock import SystemClock
from policies import shipped
from testbed.opa import Opa
from testbed.pki import Authority

FILES = shipped.files()
CLASSES = json.loads(FILES["data/classes.json"])
PATIENCE_S = 30.0  # OPA polls every 1 to 2 s; the rest is for a busy machine


def _with_min_runtime(seconds: float) -> dict[str, str]:
    inference = {**CLASSES["inference"], "min_runtime_seconds": seconds}
    return {**FILES, "data/classes.json": json.dumps({**CLASSES, "inference": inference})}


@pytest.fixture
def publication(opa_program: Path, tmp_path: Path) -> Publication:
    """With the shipped policies."""
    made = Publication(opa=opa_program, folder=tmp_path / "kept")
    made.offer(FILES)
    return made


@pytest.fixture
def tls_folder(tmp_path: Path) -> Path:
    """A CA, and one certificate for both sides."""
    folder = tmp_path / "tls"
    Authority(folder).issue("tls", common_name="kyb-controller", addresses=["127.0.0.1"])
    return folder


@pytest.fixture
def address(publication: Publication, tls_folder: Path) -> Iterator[str]:
    """Where the bundle is served."""
    app = bundle_app(publication)
    server = BundleServer("127.0.0.1:0", app, tls_folder, SystemClock())
    server.start()
    yield f"https://127.0.0.1:{server.address[1]}"
    server.stop()


@pytest.fixture
def config(address: str, tls_folder: Path, tmp_path: Path) -> Path:
    """OPA's configuration file."""
    path = tmp_path / "opa.json"
    kept = str(tmp_path / "persisted")
    names = (str(tls_folder / name) for name in ("ca.crt", "tls.crt", "tls.key"))
    tls = BundleTls(**dict(zip(("ca", "certificate", "key"), names, strict=True)))
    path.write_text(json.dumps(opa_config(url=address, persistence=kept, tls=tls)))
    return path


def _until(policy: OpaPolicy, revision: Revision) -> None:
    """Until the policies of this revision answer."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.05)):
        if policy.revision() == revision:
            return
        pause.wait(0.05)
    raise AssertionError(f"OPA has {policy.revision()}, not {revision}, after {PATIENCE_S} s")


def test_an_edited_number_changes_the_next_verdict(
    publication: Publication,
    config: Path,
    tmp_path: Path,
    a_tenant: Callable[..., Any],
    a_preemption: Callable[..., Any],
) -> None:
    question = a_preemption(a_tenant("b"), a_tenant("a", running_seconds=8.0, idle_seconds=5.0))
    assert publication.current is not None
    with Opa.start(tmp_path / "opa", config=config) as server:
        policy = OpaPolicy(server.url, timeout_s=10.0)
        _until(policy, publication.current.revision)
        before = policy.preemption(question)

        edited = publication.offer(_with_min_runtime(60))
        _until(policy, edited.revision)
        after = policy.preemption(question)

        with pytest.raises(BundleRefused):
            publication.offer({**FILES, "data/classes.json": "{"})
        still = policy.preemption(question)
    assert isinstance(before, PreemptionVerdict)
    assert isinstance(after, PreemptionVerdict)
    assert (before.allow, before.reason) == (True, "HolderIdle")
    assert (after.allow, after.reason, after.retry_seconds) == (False, "MinRuntime", 52.0)
    assert after.revision == edited.revision != before.revision
    assert still == after


def test_an_opa_that_starts_without_a_controller_has_what_it_had(
    publication: Publication, config: Path, tmp_path: Path, address: str
) -> None:
    assert publication.current is not None
    with Opa.start(tmp_path / "first", config=config) as server:
        _until(OpaPolicy(server.url, timeout_s=10.0), publication.current.revision)
    gone = json.loads(config.read_text().replace(address, "https://127.0.0.1:9"))
    config.write_text(json.dumps(gone))
    with Opa.start(tmp_path / "second", config=config) as server:
        _until(OpaPolicy(server.url, timeout_s=10.0), publication.current.revision)
