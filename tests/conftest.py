"""
What every test may ask for.

Real: the binaries (built once into the user's cache folder) and one control plane a session.
Observed: nothing. Faked: nothing; a test that fakes something says so itself.
Rule: the plane is shared, so a test works in a namespace and on nodes of its own.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import settings

from testbed import assets as binaries
from testbed.controlplane import ControlPlane

# A busy machine is slow now and then; a test that hangs is pytest-timeout's to name.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: the minutes that takes must not count as a test's."""
    if not any("assets" in getattr(item, "fixturenames", ()) for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        binaries.ensure()


@pytest.fixture(scope="session")
def assets() -> dict[str, Path]:
    """Paths of the binaries, by name."""
    return binaries.ensure()


@pytest.fixture(scope="session")
def plane(
    assets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """One real control plane for the session; its scheduler is for tests to start and stop."""
    with ControlPlane.start(tmp_path_factory.mktemp("plane")) as running:
        yield running
