"""
`kyb` as it is typed, against an API server in memory that is reached over HTTP.

Faked: the API server; a test speaks for the controller. Real: the command line, the kubeconfig, the
client.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from kyb.__main__ import app
from kybernate.testing.fakehttp import FakeHttp
from kybernate.testing.fakekube import FakeKube


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def kyb(kube: FakeKube, tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """`kyb("ps")`: what it answered, its exit code with it."""
    with FakeHttp(kube) as served:
        config = served.kubeconfig(tmp_path / "kubeconfig")

        def run(*words: str, **environment: Any) -> Result:
            known = {"COLUMNS": "200", "KUBECONFIG": str(config), **environment}
            return CliRunner().invoke(app, list(words), env=known)

        yield run
