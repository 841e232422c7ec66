"""Kubeconfigs and service accounts: who we are, and what cannot be used is said."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from kybernate.clients import kubeconfig
from kybernate.clients.errors import Refused, Unavailable
from kybernate.clients.kube import Kube
from kybernate.clients.kubeconfig import Access, BadKubeconfig
from kybernate.clients.resources import CONFIGMAPS
from testbed.pki import Authority


def write(path: Path, user: dict[str, Any] | None = None, **changes: Any) -> Path:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1/prefix/"}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump({**config, **changes}))
    return path


def test_the_current_context_is_read(tmp_path: Path) -> None:
    access = kubeconfig.read(write(tmp_path / "config", {"token": "t"}))
    assert access.server == "http://127.0.0.1:1/prefix"
    assert (access.token, access.namespace, access.ssl_context) == ("t", "team", None)


def test_a_token_file_is_found_beside_the_kubeconfig(tmp_path: Path) -> None:
    access = kubeconfig.read(write(tmp_path / "config", {"tokenFile": "token"}))
    assert access.token_file == tmp_path / "token"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("{", "config", id="not-yaml"),
        pytest.param("", "no usable current context", id="empty"),
        pytest.param("current-context: nowhere", "nowhere", id="unknown-context"),
        pytest.param("current-context: 5\ncontexts: 7", "context", id="wrong-types"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_file(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(BadKubeconfig, match=says) as caught:
        Kube.from_kubeconfig(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, Refused)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadKubeconfig, match="absent"):
        Kube.from_kubeconfig(tmp_path / "absent")


@pytest.mark.parametrize("kind", ["exec", "auth-provider"])
def test_plugins_are_refused_with_what_is_accepted(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "config", {kind: {"command": "aws"}})
    with pytest.raises(BadKubeconfig, match="client certificate, token or tokenFile"):
        kubeconfig.read(path)


def test_a_broken_certificate_is_refused(tmp_path: Path) -> None:
    cluster = {"server": "https://h", "certificate-authority-data": "!!!"}
    path = write(tmp_path / "config", clusters=[{"name": "c", "cluster": cluster}])
    with pytest.raises(BadKubeconfig):
        kubeconfig.read(path)


def test_outside_of_a_cluster_the_flag_is_named() -> None:
    with pytest.raises(BadKubeconfig, match="--kubeconfig"):
        kubeconfig.in_cluster(environ={})


def test_in_a_cluster_the_service_account_is_used(tmp_path: Path) -> None:
    Authority(tmp_path)
    (tmp_path / "namespace").write_text("kyb-system\n")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = kubeconfig.in_cluster(environ, tmp_path)
    assert access.server == "https://[fd00::1]:443"
    assert (access.token_file, access.namespace) == (tmp_path / "token", "kyb-system")


def test_a_token_is_read_again_when_its_file_changes(
    tmp_path: Path, scripted: Any, steps: Any
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    scripted.lists = [steps.answer(200, {"items": [], "metadata": {}})]
    kube = Kube.of(Access(server=scripted.url, token_file=token))
    kube.list(CONFIGMAPS)
    token.write_text("second")
    os.utime(token, ns=(1, 1))
    kube.list(CONFIGMAPS)
    token.unlink()
    kube.list(CONFIGMAPS)
    assert scripted.tokens == ["Bearer first", "Bearer second", "Bearer second"]


def test_a_token_that_was_never_there_is_waited_for(tmp_path: Path, scripted: Any) -> None:
    kube = Kube.of(Access(server=scripted.url, token_file=tmp_path / "token"))
    with pytest.raises(Unavailable, match="token"):
        kube.list(CONFIGMAPS)
