"""
What `make images` builds and how it tries it, as far as that takes no minutes.

Faked: buildah. The building itself, and what a real node makes of the images: `make images`.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed.imaging import BaseFailed, TrialFailed, __main__, bases, buildah, trial
from testbed.node import machine

ROOT = Path(__file__).parents[2]
DOCKERFILE = trial.DOCKERFILE.read_text()


@dataclass
class FakeBuildah:
    """Images that are what they say."""

    user: str = "65532:65532"
    ids: str = "65532:65532"
    driver: str = "vfs"
    built: list[str] = field(default_factory=list)
    ran: list[list[str]] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    open: int = 0

    def new(self, image: str) -> str:
        self.open += 1
        return image

    def build(self, dockerfile: Path, context: Path, target: str, image: str) -> None:
        assert (dockerfile, context) == (trial.DOCKERFILE, ROOT)
        self.built.append(image)

    def asked(self, image: str, form: str) -> str:
        return self.user if "User" in form else f"python\n-m\n{image.split('/')[-1].split(':')[0]}"

    def run(self, container: str, argv: list[str]) -> str:
        self.ran.append(list(argv))
        if argv[0] == "id":
            return self.ids.split(":")[argv[1] == "-g"] + "\n"
        return "3.11\n"

    def remove(self, container: str) -> None:
        self.open -= 1

    def save(self, image: str, file: Path) -> None:
        self.saved.append(file.name)


@pytest.fixture
def no_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "make", lambda _, wanted: iter(sorted(wanted)))


def test_every_stage_that_others_do_not_build_on_is_a_target() -> None:
    """That the manifests run no other: tests/manifests/test_images.py."""
    stages = {line.split()[-1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")}
    assert set(trial.targets(DOCKERFILE)) == stages - {"base", "build", "runtime"}


def test_there_is_a_stand_in_for_all_that_the_dockerfile_starts_from() -> None:
    starts = trial.starts(DOCKERFILE)
    assert {one.partition(":")[0] for one in starts} == set(bases.STAND_INS)
    with pytest.raises(BaseFailed, match="no stand-in for alpine:3"):
        list(bases.make(FakeBuildah(), {"alpine:3"}))


@pytest.mark.usefixtures("no_bases")
def test_every_process_is_asked_for_its_help_as_its_user_and_nothing_stays_open() -> None:
    builder = FakeBuildah()
    tried = list(trial.build(builder, ["webhook", "controller"], print))
    assert builder.built == [
        "docker.io/kybernate/webhook:0.1.0",
        "docker.io/kybernate/controller:0.1.0",
    ]
    assert [one.ran for one in tried] == [
        ("python -m webhook --help",),
        ("python -m controller --help", "opa version"),
    ]
    assert {one.user for one in tried} == {"65532:65532"}
    assert builder.open == 0


@pytest.mark.usefixtures("no_bases")
def test_an_image_that_runs_as_another_than_it_says_fails() -> None:
    builder = FakeBuildah(ids="0:0")
    with pytest.raises(TrialFailed, match="webhook runs as 0:0, not as 65532:65532"):
        list(trial.build(builder, ["webhook"], print))
    assert builder.open == 0


@pytest.mark.usefixtures("no_bases")
def test_what_nodes_run_is_kept_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = FakeBuildah()
    monkeypatch.setattr(buildah.Buildah, "of", lambda _: builder)
    monkeypatch.setattr(__main__, "why_not", lambda: None)
    assert __main__.main(["--keep", str(tmp_path), "nodeagent", "kyb"]) == 0
    assert builder.saved == ["nodeagent.tar"]
    assert "building nodeagent" in capsys.readouterr().out


def test_where_nothing_can_be_built_it_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(buildah.os, "geteuid", lambda: 1000)
    assert __main__.main([]) == 1
    assert "images are built by root on Linux" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(buildah.os, "geteuid", lambda: 0)
    monkeypatch.setattr(buildah.shutil, "which", lambda _: None)
    assert __main__.main([]) == 1
    assert "not installed: ldconfig, mount, perl, unshare" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        __main__.main(["kernel"])
    assert "there is no 'kernel'; there are: extender, webhook" in capsys.readouterr().err


@pytest.mark.parametrize(("stacks", "driver"), [(True, "overlay"), (False, "vfs")])
def test_layers_are_stacked_where_that_works_and_nothing_is_pulled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stacks: bool, driver: str
) -> None:
    program = tmp_path / "usr/bin/buildah"
    monkeypatch.setattr(buildah.assets, "ensure", lambda _: {"buildah": program})
    monkeypatch.setattr(machine, "overlay_works", lambda _: stacks)
    builder = buildah.Buildah.of(tmp_path / "store")
    assert builder._environment()["STORAGE_DRIVER"] == driver
    said: list[list[str]] = []

    class Done:
        returncode, stdout, stderr = 0, "", ""

    monkeypatch.setattr(buildah.subprocess, "run", lambda argv, **_: said.append(argv) or Done)
    builder.build(trial.DOCKERFILE, ROOT, "kyb", "docker.io/kybernate/kyb:0.1.0")
    builder.new("docker.io/library/debian:bookworm-slim")
    (kept := tmp_path / "kyb.tar").touch()
    builder.save("docker.io/kybernate/kyb:0.1.0", kept)
    assert not kept.exists()  # buildah adds nothing to an archive that is there
    assert said.pop()[-1] == f"docker-archive:{kept}:docker.io/kybernate/kyb:0.1.0"
    assert all("--pull-never" in argv for argv in said)
    assert json.loads((tmp_path / "store/policy.json").read_text())["default"]
    assert (tmp_path / "store/registries.conf").read_text() == ""
