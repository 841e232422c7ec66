"""A Secret's keys as files: all of one version or all of the next, private, kept up to date."""

import os
import stat
import threading
from pathlib import Path

import pytest

from testbed import projection
from testbed.controlplane import ControlPlane
from testbed.processes import Processes
from testbed.projection import SecretProjection


def test_files_are_replaced_all_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "secret"
    projection.write(folder, {"tls.crt": b"0", "tls.key": b"0"})
    done = threading.Event()
    torn = []

    def read() -> None:
        while not done.is_set():
            try:
                pair = _pair(folder / "..data")
            except FileNotFoundError:
                continue  # two versions came meanwhile; a reader looks again
            torn.extend([pair] if len(pair) > 1 else [])

    reader = threading.Thread(target=read)
    reader.start()
    for version in range(200):
        value = str(version).encode()
        projection.write(folder, {"tls.crt": value, "tls.key": value})
        assert (folder / "tls.crt").read_bytes() == value
    done.set()
    reader.join()
    assert not torn


def test_a_key_that_went_loses_its_file(tmp_path: Path) -> None:
    projection.write(tmp_path, {"old": b"1", "kept": b"1"})
    projection.write(tmp_path, {"new": b"2", "kept": b"2"})
    visible = {entry.name for entry in tmp_path.iterdir() if not entry.name.startswith("..")}
    assert visible == {"new", "kept"}


def test_old_versions_do_not_pile_up(tmp_path: Path) -> None:
    for version in range(5):
        projection.write(tmp_path, {"k": str(version).encode()})
    assert len(list(tmp_path.iterdir())) == 4  # k, ..data, the version it names and the one before


def test_files_are_private(tmp_path: Path) -> None:
    projection.write(tmp_path / "secret", {"tls.key": b"1"})
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "secret" / "tls.key").stat().st_mode) == 0o600


@pytest.mark.controlplane
def test_a_secret_is_followed_and_its_last_content_stays(
    plane: ControlPlane, tmp_path: Path, eventually
) -> None:
    plane.kubectl("create", "namespace", "projection")
    with SecretProjection(plane.api, "projection", "tls", tmp_path / "secret") as secret:
        with pytest.raises(TimeoutError, match="no Secret"):
            secret.wait_for(0.1)
        _create(plane, "first")
        file = secret.wait_for() / "token"
        assert file.read_text() == "first"
        plane.kubectl("delete", "secret", "tls", "-n", "projection")
        _create(plane, "second")
        eventually(lambda: file.read_text() == "second")


@pytest.mark.controlplane
def test_a_program_does_the_same(plane: ControlPlane, tmp_path: Path) -> None:
    plane.kubectl("create", "namespace", "projected")
    plane.kubectl("create", "secret", "generic", "s", "--from-literal=k=v", "-n", "projected")
    folder = tmp_path / "secret"
    with Processes(tmp_path) as group:
        argv = projection.program(plane.api, "projected", {"s": folder})
        group.start("projection", argv, ready=(folder / "k").exists)
        assert (folder / "k").read_text() == "v"


def _create(plane: ControlPlane, value: str) -> None:
    literal = f"--from-literal=token={value}"
    plane.kubectl("create", "secret", "generic", "tls", literal, "-n", "projection")


def _pair(folder: Path) -> set[bytes]:
    """What both files hold, in whatever version the link names now."""
    version = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return {_read(version, name) for name in ("tls.crt", "tls.key")}
    finally:
        os.close(version)


def _read(folder: int, name: str) -> bytes:
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read()
