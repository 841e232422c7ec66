"""Settings: flag before environment before file, and every fault at once."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from kybernate.api.errors import Malformed
from kybernate.runtime import settings
from kybernate.runtime.settings import ProcessSettings, load, setting


class Mode(StrEnum):
    FAST = "fast"
    SAFE = "safe"


@dataclass(frozen=True, kw_only=True)
class Settings(ProcessSettings):
    """python -m example: an example."""

    node: str = setting(help="the node it runs on")
    candidates: int = setting(32, help="nodes that filter answers with; 0 = all")
    opa_url: str = setting("http://127.0.0.1:8181", help="OPA's address, on loopback")
    wait: float = setting(30.0, unit="seconds", help="how long it waits")
    pool: int = setting(2**30, unit="bytes", help="size of the pool")
    ratio: float = setting(0.5, help="a part of the whole")
    dry: bool = setting(False, help="only says what it would do")
    mode: Mode = setting(Mode.SAFE, help="how it goes about it")
    names: tuple[str, ...] = setting((), help="several names")


def read(*argv: str, environ: dict[str, str] | None = None, file: Path | None = None) -> Settings:
    return load(Settings, argv=["--node", "n", *argv], environ=environ or {}, file=file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text("opaUrl: http://file\ncandidates: 1\nwait: 2m\nnames: [a, b]\ndry: true\n")
    return path


def test_defaults_are_used_where_nothing_is_given() -> None:
    found = read()
    assert (found.candidates, found.wait, found.pool, found.dry) == (32, 30.0, 2**30, False)
    assert (found.kubeconfig, found.metrics_listen, found.log_level) == (None, ":9090", "info")
    assert (found.mode, found.names) == (Mode.SAFE, ())


def test_a_flag_is_stronger_than_the_environment_and_that_than_the_file(file: Path) -> None:
    environ = {"KYB_OPA_URL": "http://environment", "KYB_CANDIDATES": "2"}
    found = read("--opa-url", "http://flag", environ=environ, file=file)
    assert found.opa_url == "http://flag"
    assert found.candidates == 2
    assert found.wait == 120.0
    assert (found.names, found.dry) == (("a", "b"), True)


@pytest.mark.parametrize("how", ["flag", "flag=", "environment"])
def test_the_file_can_be_named(file: Path, how: str) -> None:
    environ = {"KYB_CONFIG": str(file)} if how == "environment" else {}
    flags = {"flag": ["--config", str(file)], "flag=": [f"--config={file}"]}.get(how, [])
    assert read(*flags, environ=environ).opa_url == "http://file"


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        pytest.param(["--wait=1h30m"], "wait", 5400.0, id="duration"),
        pytest.param(["--pool", "40Gi"], "pool", 40 * 2**30, id="size"),
        pytest.param(["--ratio=.25"], "ratio", 0.25, id="number"),
        pytest.param(["--dry"], "dry", True, id="bare-flag"),
        pytest.param(["--dry", "--candidates=1"], "dry", True, id="bare-flag-before-another"),
        pytest.param(["--dry", "false"], "dry", False, id="false"),
        pytest.param(["--dry=false"], "dry", False, id="equals-false"),
        pytest.param(["--mode", "fast"], "mode", Mode.FAST, id="enum"),
        pytest.param(["--names", "a, b,c"], "names", ("a", "b", "c"), id="several"),
        pytest.param(["--kubeconfig", "/k"], "kubeconfig", Path("/k"), id="path"),
        pytest.param(["--metrics-listen=[::1]:0"], "metrics_listen", "[::1]:0", id="address"),
        pytest.param(["--opa-url", "a", "--opa-url=b"], "opa_url", "b", id="the-last-one-wins"),
    ],
)
def test_values_are_read(argv: list[str], name: str, value: Any) -> None:
    assert getattr(read(*argv), name) == value


FAULTS = [
    pytest.param(
        ["--candidates", "many"], "--candidates: 'many' (expected a whole number)", id="int"
    ),
    pytest.param(["--ratio=x"], "--ratio: 'x' (expected a number)", id="float"),
    pytest.param(["--wait", "90"], "like 90s, 5m or 1h30m", id="seconds-without-unit"),
    pytest.param(["--pool", "-1Gi"], "like 40Gi", id="negative-size"),
    pytest.param(["--dry=yes"], "true or false", id="bool"),
    pytest.param(["--mode", "quick"], "one of fast, safe", id="enum"),
    pytest.param(["--log-level=loud"], "one of debug, info, warning, error", id="choices"),
    pytest.param(["--metrics-listen", "9090"], "HOST:PORT", id="address"),
    pytest.param(["--candidates"], "--candidates: None (expected a value after it)", id="no-value"),
    pytest.param(["--candidate", "5"], "--candidate: ", id="unknown"),
    pytest.param(["stray"], "stray: None", id="stray-word"),
]


@pytest.mark.parametrize(("argv", "says"), FAULTS)
def test_what_cannot_be_read_is_refused_in_words(argv: list[str], says: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(*argv)
    assert len(caught.value.faults) == 1
    assert says in str(caught.value)


def test_an_unknown_flag_is_answered_with_the_accepted_ones() -> None:
    with pytest.raises(Malformed) as caught:
        read("--opa", "http://x")
    (fault,) = caught.value.faults
    assert "--opa-url" in fault.expected
    assert "--config" in fault.expected


def test_an_unknown_key_is_answered_with_the_accepted_ones(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("opa_url: http://x\ncandidates: 3\n")
    with pytest.raises(Malformed) as caught:
        read(file=path)
    (fault,) = caught.value.faults
    assert fault.path == "opa_url"
    assert "opaUrl" in fault.expected


def test_unknown_variables_are_no_fault_because_services_make_some() -> None:
    assert read(environ={"KYB_EXTENDER_SERVICE_HOST": "10.0.0.1"}).node == "n"


def test_all_faults_of_all_sources_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("nodes: 3\npool: huge\n")
    with pytest.raises(Malformed) as caught:
        load(
            Settings,
            argv=["--wait=5", "--unknown"],
            environ={"KYB_CANDIDATES": "x"},
            file=path,
        )
    assert {fault.path for fault in caught.value.faults} == {
        "--unknown",
        "nodes",
        "--node",
        "KYB_CANDIDATES",
        "--wait",
        "pool",
    }


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("- a list", id="list"),
        pytest.param("a: b: c", id="not-yaml"),
        pytest.param(None, id="absent"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_fault(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Malformed) as caught:
        read("--config", str(path))
    assert caught.value.faults[0].path == "--config"


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("")
    assert read(file=path) == read()


def test_what_must_be_given_names_all_three_ways() -> None:
    with pytest.raises(Malformed, match=r"--node: None \(expected a value \(or KYB_NODE, or node"):
        load(Settings, argv=[], environ={})


def test_help_tells_unit_default_and_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read("--help")
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for expected in (
        "an example",
        "--wait DURATION how long it waits. Default 30s. Environment KYB_WAIT, file key wait.",
        "--pool SIZE size of the pool. Default 1Gi.",
        "--opa-url TEXT OPA's address, on loopback. Default http://127.0.0.1:8181. "
        "Environment KYB_OPA_URL, file key opaUrl.",
        "--node TEXT the node it runs on. It must be given.",
        "--mode fast|safe how it goes about it. Default safe.",
        "--dry true|false",
        "--kubeconfig PATH",
        "--config FILE",
    ):
        assert expected in text


def test_a_process_that_cannot_start_says_why_and_ends_with_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["example", "--wait", "5", "--what"])
    with pytest.raises(SystemExit) as ended:
        settings.from_process(Settings)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("these settings cannot be used:\n")
    assert len(said.splitlines()) == 4
