"""
What every test may ask for.

Real: the binaries (built once into the user's cache folder), one control plane a session, and two
nodes where the machine can run them.
Observed: nothing. Faked: nothing; a test that fakes something says so itself.
Rule: the plane is shared, so a test works in a namespace and on nodes of its own.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from testbed import assets as binaries
from testbed.assets import native
from testbed.controlplane import ControlPlane
from testbed.node import machine, programs
from testbed.node.realnode import RealNode
from testbed.node.spec import NodeSpec

# A busy machine is slow now and then; a test that hangs is pytest-timeout's to name.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`eventually(check)` answers the first true answer of `check`, or fails after `within` s."""

    def wait(check: Callable[[], Any], within: float = 60.0) -> Any:
        pause = threading.Event()
        deadline = time.monotonic() + within
        while not (answer := check()):
            assert time.monotonic() < deadline, f"not within {within:g} s: {check}"
            pause.wait(0.01)
        return answer

    return wait


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: the minutes that takes must not count as a test's."""
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        if "assets" in wanted:
            binaries.ensure()
        if "real_programs" in wanted:
            _why_no_real_nodes()
        if "chromium" in wanted:
            _why_no_browser()


@cache
def _why_no_browser() -> str | None:
    """Why tests of pages skip; fetches what they run when they need not."""
    try:
        binaries.ensure(["chromium"])
    except binaries.PackagesUnavailable as unavailable:
        return str(unavailable)
    return None


@cache
def _why_no_real_nodes() -> str | None:
    """Why tests on real nodes skip; builds and fetches what these run when they need not."""
    problem = machine.why_not() or native.why_not()
    try:
        if problem is None:
            programs.find()
    except (binaries.PackagesUnavailable, programs.NoPrograms) as unavailable:
        return str(unavailable)
    return problem


@pytest.fixture(scope="session")
def assets() -> dict[str, Path]:
    """Paths of the binaries, by name."""
    return binaries.ensure()


@pytest.fixture(scope="session")
def chromium() -> None:
    """The browser that pages are tested in. Skips, with the reason, where it cannot be had."""
    problem = _why_no_browser()
    if problem:
        pytest.skip(problem)


@pytest.fixture(scope="session")
def plane(
    assets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """One real control plane for the session; its scheduler is for tests to start and stop."""
    with ControlPlane.start(tmp_path_factory.mktemp("plane")) as running:
        yield running


@pytest.fixture(scope="session")
def real_programs() -> None:
    """What a real node runs. Skips, with the reason, where this machine cannot run one."""
    problem = _why_no_real_nodes()
    if problem:
        pytest.skip(problem)


@pytest.fixture(scope="session")
def real_nodes(
    real_programs: None, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RealNode, RealNode]]:
    """Two real nodes of the session's plane, `real-1` and `real-2`.

    Only pods that name their node, or tolerate `kyb.test/real`, come to them.
    """
    taint = {"key": "kyb.test/real", "effect": "NoSchedule"}
    with ExitStack() as running:
        one, two = (
            running.enter_context(
                RealNode.start(
                    plane,
                    tmp_path_factory.mktemp(name),
                    NodeSpec(name=name, kubelet={"registerWithTaints": [taint]}),
                )
            )
            for name in ("real-1", "real-2")
        )
        yield one, two


@pytest.fixture(scope="session")
def real_node(real_nodes: tuple[RealNode, RealNode]) -> RealNode:
    """One of them."""
    return real_nodes[0]
