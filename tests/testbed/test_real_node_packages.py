"""
Programs out of Debian packages: pinned, proven, unpacked, and refused in words.

Faked: apt-get, which answers for a mirror with one package; dpkg-deb is real where there is one.
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from testbed import assets
from testbed.assets import apt, debian
from testbed.assets.apt import PackagesUnavailable
from testbed.assets.catalog import NODE_PACKAGED, PACKAGED
from testbed.assets.debian import Packaged
from testbed.node import programs

APT = """#!/bin/sh
case "$*" in
  *indextargets*) echo "mirror://here/debian $FAKE_SUITE"; echo "mirror://other other";;
  *download*) for last; do :; done
    [ "$last" = "tool=1.0" ] || { echo "E: Version for $last was not found" >&2; exit 100; }
    cp "$FAKE_PACKAGE" .;;
esac
"""


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `tool` 1.0 with a program in it, at the mirror of a Debian 12."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/tool").write_text("#!/bin/sh\necho tool\n")
    (tree / "usr/bin/tool").chmod(0o755)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: tool\nVersion: 1.0\nArchitecture: all\nMaintainer: t <t@t>\nDescription: t\n"
    )
    package = tmp_path / "tool_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", tree, package], check=True, capture_output=True)
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(APT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_PACKAGE", str(package))
    monkeypatch.setenv("FAKE_SUITE", "bookworm")
    monkeypatch.delenv("KYB_ASSETS", raising=False)
    release = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr(apt.platform, "freedesktop_os_release", lambda: release)
    _pin(tmp_path, monkeypatch, "1.0", hashlib.sha256(package.read_bytes()).hexdigest())
    return tmp_path


TOOL = Packaged(name="tool", suite="newer", root="tool", program="usr/bin/tool")


def test_a_package_is_unpacked_into_the_cache_and_nowhere_else(mirror: Path) -> None:
    found = assets.ensure(["tool"], catalog={"tool": TOOL})["tool"]
    assert subprocess.run([found], capture_output=True, check=True).stdout == b"tool\n"
    assert found.is_relative_to(mirror / "cache")
    assert not list(found.parents[2].glob(".apt*"))


def test_a_package_that_is_not_what_was_pinned_is_refused(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pin(mirror, monkeypatch, "1.0", "0" * 64)
    with pytest.raises(PackagesUnavailable, match=r"tool_1\.0_all\.deb is not what was pinned"):
        assets.ensure(["tool"], catalog={"tool": TOOL})


def test_a_mirror_that_has_moved_on_is_told_with_what_to_do(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pin(mirror, monkeypatch, "0.9", "0" * 64)
    with pytest.raises(PackagesUnavailable, match=r"(?s)testbed\.assets\.pin.*tool=0\.9 was not"):
        assets.ensure(["tool"], catalog={"tool": TOOL})


def test_the_mirror_is_the_machines_own_with_another_suite(mirror: Path) -> None:
    assert apt.mirror().source("newer").split()[-3:] == ["mirror://here/debian", "newer", "main"]


def test_a_machine_without_a_mirror_says_so(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SUITE", "sid")
    assert apt.why_not() == "apt is not configured for a mirror of this Debian"


def test_on_another_system_its_own_programs_are_taken_when_they_are_new_enough(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt.platform, "freedesktop_os_release", lambda: {"ID": "other"})
    assert programs.why_not() == "runc is not installed, and this machine is not a Debian"
    for name, said in (("runc", ""), ("criu", "Version: 3.17.1"), ("busybox", "")):
        (mirror / "bin" / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (mirror / "bin" / name).chmod(0o755)
    assert "criu is 3.17, needed is 4.2" in str(programs.why_not())
    (mirror / "bin" / "criu").write_text("#!/bin/sh\necho 'Version: 4.2.1'\n")
    for plugin in ("bridge", "host-local", "loopback"):
        (mirror / plugin).touch()
    monkeypatch.setattr(programs, "_PLUGIN_FOLDERS", (str(mirror),))
    assert programs.why_not() is None


def test_every_program_is_pinned_by_version_and_hash() -> None:
    pinned = json.loads(debian.PINS.read_text())
    wanted = {*NODE_PACKAGED, "buildah", "chromium", "mmdebstrap", "musl"}
    assert {asset.name for asset in PACKAGED} == wanted
    for architecture in pinned.values():
        assert set(architecture) == wanted
        for pins in architecture.values():
            assert all(version and len(sha256) == 64 for _, version, sha256 in pins)


def _pin(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, sha256: str) -> None:
    file = folder / "packages.json"
    file.write_text(json.dumps({apt.architecture(): {"tool": [["tool", version, sha256]]}}))
    monkeypatch.setattr(debian, "PINS", file)
