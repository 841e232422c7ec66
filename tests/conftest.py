"""
What every test may ask for.

Real: the binaries (built once into the user's cache folder) and one control plane a session.
Observed: nothing. Faked: nothing; a test that fakes something says so itself.
Rule: the plane is shared, so a test works in a namespace and on nodes of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import assets as binaries
from testbed.controlplane import ControlPlane


@pytest.fixture(scope="session")
def assets(pytestconfig: pytest.Config) -> dict[str, Path]:
    """Paths of the binaries, by name. Builds them the first time, and shows the minutes pass."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    if capture is None:
        return binaries.ensure()
    with capture.global_and_fixture_disabled():
        return binaries.ensure()


@pytest.fixture(scope="session")
def plane(
    assets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """One real control plane for the session; its scheduler is for tests to start and stop."""
    with ControlPlane.start(tmp_path_factory.mktemp("plane")) as running:
        yield running
