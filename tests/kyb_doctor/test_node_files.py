"""What `kyb install-node` and `kyb uninstall-node` do to a node, made of values and of folders."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from kyb.__main__ import app
from kyb.doctor import containerd, runtimeconf
from kyb.doctor.host import Host
from kyb.nodefiles import carrying, command, distributions, plan, snippet, standing
from kyb.nodefiles.plan import (
    Brought,
    Container,
    ContainerdStands,
    Plan,
    Refused,
    Remove,
    Standing,
    Write,
)
from kyb.nodefiles.snippet import Snippet

DROP_IN = f"{plan.USUAL_FOLDER}/{snippet.NAME}"
CONTAINERD = ContainerdStands(
    version="2.3.4",
    program="/usr/bin/containerd",
    root_version=3,
    path="/etc/containerd/config.toml",
    folders=(plan.USUAL_FOLDER,),
    systemd_cgroup=True,
    handled=None,
    stale=False,
)
BARE = Standing(
    program=None,
    plugin=None,
    guest=None,
    preload=None,
    conf=None,
    drop_ins=(),
    containerd=CONTAINERD,
    request_timeout=120.0,
)
NEW = Brought(b"new", b"plugin", b"guest")
OURS = [plan.PROGRAM, plan.PLUGIN, plan.GUEST, plan.PRELOAD]
TEXT = Snippet(program=plan.PROGRAM, systemd_cgroup=True).text()
INSTALLED = replace(
    BARE,
    program=b"new",
    plugin=b"plugin",
    guest=b"guest",
    preload=b"/usr/local/lib/kybernate/libkybguest.so\n",
    conf=snippet.runtime_conf(runtimeconf.fitting(120.0)),
    drop_ins=((DROP_IN, TEXT),),
    containerd=replace(CONTAINERD, handled=plan.PROGRAM),
)


def with_containerd(now: Standing, **other: Any) -> Standing:
    return replace(now, containerd=replace(CONTAINERD, **other))


def reasons(decided: Plan | Refused) -> str:
    assert isinstance(decided, Refused)
    return "\n".join(decided.reasons)


def test_a_bare_node_gets_all_of_it_and_containerd_has_to_be_restarted_by_people():
    done = plan.install(BARE, NEW)
    assert isinstance(done, Plan)
    assert [step.path for step in done.steps] == [*OURS, runtimeconf.PATH, DROP_IN]
    program, plugin, guest, preload, conf, drop_in = done.steps
    assert (plugin.content, guest.content) == (b"plugin", b"guest")
    assert preload.content == INSTALLED.preload
    assert (program.content, program.mode) == (b"new", 0o755)
    assert runtimeconf.read(conf.content.decode()) == runtimeconf.RuntimeConf(
        path=runtimeconf.PATH, agent_wait=60.0, wake_wait=90.0
    )
    assert drop_in.content.decode() == TEXT
    assert done.left == (distributions.RESTART,)


def test_doing_it_again_changes_nothing():
    done = plan.install(INSTALLED, NEW)
    assert isinstance(done, Plan)
    assert (done.steps, done.left) == ((), ())
    assert len(done.kept) == 6


def test_an_upgrade_replaces_what_is_newer_only_and_needs_no_restart():
    done = plan.install(INSTALLED, Brought(b"newer", b"plugin", b"younger"))
    assert isinstance(done, Plan)
    assert done.steps == (
        Write(plan.PROGRAM, b"newer", 0o755),
        Write(plan.GUEST, b"younger", 0o755),
    )
    assert done.left == ()


def test_settings_that_people_edited_are_kept_and_judged():
    edited = replace(INSTALLED, conf="agent-wait = 90\n", request_timeout=30.0)
    done = plan.install(edited, NEW)
    assert isinstance(done, Plan)
    assert f"{runtimeconf.PATH}, as it is" in done.kept
    assert "agent-wait in /etc/kyb/runtime.conf is 90 s, not below the kubelet's" in done.left[0]
    assert "wake-wait in /etc/kyb/runtime.conf is 90 s" in done.left[1]
    assert "sokcet" in plan.install(replace(INSTALLED, conf="sokcet = /a"), NEW).left[0]


def test_nothing_is_waited_for_as_long_as_an_impatient_kubelet_is_patient():
    done = plan.install(replace(BARE, request_timeout=10.0), NEW)
    assert isinstance(done, Plan)
    conf = runtimeconf.read(done.steps[4].content.decode())
    assert runtimeconf.waits(conf) == {"agent-wait": 5.0, "wake-wait": 7.5}


def test_containerd_that_has_not_read_its_files_yet_is_said():
    now = with_containerd(INSTALLED, handled=plan.PROGRAM, stale=True)
    assert plan.install(now, NEW).left == (distributions.RESTART,)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"version": "1.7.24"}, "containerd is 1.7.24, needed is 2.0 or newer"),
        ({"folders": ()}, "imports = ['/etc/containerd/conf.d/*.toml']"),
        ({"handled": "/usr/bin/other"}, "BinaryName /usr/bin/other: make it /opt/kybernate"),
        ({"handled": ""}, "BinaryName (none)"),
    ],
)
def test_what_cannot_be_set_up_is_refused_with_what_to_do(other, said):
    assert said in reasons(plan.install(with_containerd(BARE, **other), NEW))


@pytest.mark.parametrize(
    ("program", "restart", "template"),
    [
        (
            "/var/lib/rancher/k3s/data/0a1b/bin/containerd",
            "systemctl restart k3s, or k3s-agent",
            "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl",
        ),
        (
            "/snap/microk8s/8511/bin/containerd",
            "snap restart microk8s.daemon-containerd",
            "/var/snap/microk8s/current/args/containerd-template.toml",
        ),
    ],
)
def test_where_containerd_is_anothers_their_command_and_their_template_are_named(
    program, restart, template
):
    told = f"restart containerd: {restart} (running pods go on)"
    done = plan.install(with_containerd(BARE, program=program), NEW)
    assert isinstance(done, Plan)
    assert done.left == (told,)
    removed = plan.uninstall(with_containerd(INSTALLED, program=program, handled=plan.PROGRAM))
    assert removed.left == (told,)
    refused = plan.install(with_containerd(BARE, program=program, folders=()), NEW)
    assert reasons(refused).startswith(f"{template} reads no folder of drop-in files")


def test_what_containerd_runs_is_where_its_flag_says_or_its_configuration():
    def told(flag: str, configuration: dict[str, Any]) -> str:
        process = SimpleNamespace(flag=lambda _: flag)
        return containerd.Running(process, "2.3.4", configuration, "/c.toml").state

    assert told("/run/k3s/containerd", {"state": "/run/containerd"}) == "/run/k3s/containerd"
    assert told("", {"state": "/a"}) == "/a"
    assert told("", {}) == containerd.STATE


def test_containerd_that_does_not_tell_is_refused_in_its_words():
    now = replace(BARE, containerd="no containerd runs")
    assert reasons(plan.install(now, NEW)) == "no containerd runs"


def test_a_runtime_that_was_configured_by_hand_is_left_alone():
    done = plan.install(with_containerd(BARE, folders=(), handled=plan.PROGRAM), NEW)
    assert isinstance(done, Plan)
    assert [step.path for step in done.steps] == [*OURS, runtimeconf.PATH]
    assert any("by hand" in one for one in done.kept)


def test_a_folder_that_is_read_is_used_where_the_usual_one_is_not():
    done = plan.install(with_containerd(BARE, folders=("/a", "/b")), NEW)
    assert isinstance(done, Plan)
    assert done.steps[-1].path == f"/b/{snippet.NAME}"


@pytest.mark.parametrize(
    ("main", "version", "name"),
    [
        (4, 3, "io.containerd.cri.v1.runtime"),
        (3, 3, "io.containerd.cri.v1.runtime"),
        (2, 2, "io.containerd.grpc.v1.cri"),
        (1, 2, "io.containerd.grpc.v1.cri"),
    ],
)
def test_a_drop_in_is_never_newer_than_the_main_file(main, version, name):
    text = Snippet(program="/p", systemd_cgroup=False, version=main).text()
    body = tomllib.loads(text)
    assert body["version"] == version
    runtime = body["plugins"][name]["containerd"]["runtimes"]["kybernate"]
    assert runtime["options"] == {"BinaryName": "/p", "SystemdCgroup": False}
    assert runtime["pod_annotations"] == runtime["container_annotations"] == ["kyb.ai/*"]


def test_nothing_is_taken_from_under_pods():
    containers = (Container(id="a", pod="default/model"), Container(id="b", pod="default/model"))
    said = reasons(plan.uninstall(replace(INSTALLED, containers=containers)))
    assert said.count("default/model") == 1
    assert "delete them first" in said


def test_all_of_it_is_taken_away_once_nobody_needs_it():
    done = plan.uninstall(INSTALLED)
    assert isinstance(done, Plan)
    assert {step.path for step in done.steps} == {DROP_IN, *OURS, runtimeconf.PATH}
    assert all(isinstance(step, Remove) for step in done.steps)
    assert done.left == (distributions.RESTART,)
    edited = plan.uninstall(replace(INSTALLED, conf="agent-wait = 1"))
    assert any("somebody edited" in one for one in edited.kept)
    taken = plan.uninstall(replace(INSTALLED, parked=("0a-1b",)))
    assert taken.left[-1] == f"remove {plan.POOL}: contents of 1 workloads that are gone"
    nothing = plan.uninstall(BARE)
    assert (nothing.steps, nothing.left) == ((), ())


# on folders


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A node whose containerd takes every drop-in file, until a test says otherwise."""
    monkeypatch.setattr(containerd, "find", lambda _: SimpleNamespace(handled=plan.PROGRAM))
    return Host(tmp_path)


def test_files_are_written_whole_and_removed_with_their_folders(node, tmp_path):
    told: list[str] = []
    carrying.carry_out(node, plan.install(BARE, NEW), told.append)
    program = tmp_path / plan.PROGRAM.lstrip("/")
    assert (program.read_bytes(), program.stat().st_mode & 0o777) == (b"new", 0o755)
    assert told == [f"wrote {p}" for p in (*OURS, runtimeconf.PATH, DROP_IN)]
    carrying.carry_out(node, plan.uninstall(INSTALLED), told.append)
    assert not program.parent.parent.exists()
    assert (tmp_path / plan.USUAL_FOLDER.lstrip("/")).is_dir()
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("before", [None, "version = 3\n"])
def test_a_drop_in_that_containerd_cannot_read_is_taken_back(node, tmp_path, monkeypatch, before):
    def refuse(_: Host) -> None:
        raise containerd.NotSeen("drop-in config version 3 higher than root config version 2")

    monkeypatch.setattr(containerd, "find", refuse)
    file = tmp_path / DROP_IN.lstrip("/")
    file.parent.mkdir(parents=True)
    if before:
        file.write_text(before)
    with pytest.raises(carrying.Broken, match="was taken back: drop-in config version 3"):
        carrying.carry_out(node, Plan(steps=(Write(DROP_IN, b"version = 9"),)), print)
    assert (file.read_text() if file.exists() else None) == before


def test_a_drop_in_that_containerd_does_not_read_is_taken_back(node, tmp_path, monkeypatch):
    monkeypatch.setattr(containerd, "find", lambda _: SimpleNamespace(handled=None))
    with pytest.raises(carrying.Broken, match="containerd does not read it"):
        carrying.carry_out(node, Plan(steps=(Write(DROP_IN, b"version = 3"),)), print)
    assert not (tmp_path / DROP_IN.lstrip("/")).exists()


@pytest.mark.parametrize(
    ("main", "imports"),
    [
        (None, ("/etc/containerd/conf.d/*.toml",)),
        ("version = 3\n", ()),
        ("version = 3\nimports = ['/a/*.toml']\n", ("/a/*.toml",)),
    ],
)
def test_only_what_the_main_file_imports_is_read_whatever_the_default_says(tmp_path, main, imports):
    process = SimpleNamespace(root=tmp_path)
    dumped = {"imports": ["/etc/containerd/conf.d/*.toml"]}
    if main is not None:
        (tmp_path / "config.toml").write_text(main)
    running = containerd.Running(process, "2.3.4", dumped, "/config.toml")
    assert running.imports == imports


def test_a_file_that_cannot_be_written_is_named(node, tmp_path):
    (tmp_path / "opt").write_text("in the way")
    with pytest.raises(carrying.Broken, match="/opt/kybernate/bin/kybernate-runc: "):
        carrying.carry_out(node, plan.install(BARE, NEW), print)


@pytest.mark.parametrize("state", [*standing._STATES, "/somewhere/else"])
def test_containers_are_found_by_their_shims_options_and_by_their_seats(tmp_path, state):
    bundles = tmp_path / state.lstrip("/") / standing._BUNDLES
    names = json.dumps({"annotations": {standing._NAMESPACE: "n", standing._POD: "p"}})
    for name, options in (
        ("ours", f'{{"binary_name": "{plan.PROGRAM}"}}'),
        ("plain", '{"binary_name": ""}'),
        ("torn", "{"),
        ("seated", ""),
    ):
        (bundles / name).mkdir(parents=True)
        (bundles / name / "options.json").write_text(options)
    (bundles / "ours/config.json").write_text(names)
    mark = tmp_path / standing._RUNC.lstrip("/") / "seated" / standing._SEAT_MARK
    mark.parent.mkdir(parents=True)
    mark.touch()
    found = tuple(standing._containers(Host(tmp_path), {plan.PROGRAM}, {*standing._STATES, state}))
    assert found == (
        Container(id="ours", pod="n/p"),
        Container(id="seated", pod="container seated"),
    )


def test_the_mark_of_a_seat_is_the_programs_own():
    sources = Path(__file__).parents[2] / "native/runtime"
    assert any(standing._SEAT_MARK in path.read_text() for path in sources.glob("*.[ch]"))


def test_folders_of_drop_ins_are_those_that_are_read_whole():
    imports = ("/a/*.toml", "/b/one.toml", "c/*.toml", "/d*/*.toml")
    assert tuple(standing._folders(imports)) == ("/a",)


# the commands


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    (tmp_path / "kybernate-runc").write_bytes(b"new")
    (tmp_path / "plugin").write_bytes(b"plugin")
    (tmp_path / "guest").write_bytes(b"guest")

    def call(now: Standing, *words: str) -> Any:
        monkeypatch.setattr(standing, "look", lambda _: now)
        monkeypatch.setattr(containerd, "find", lambda _: SimpleNamespace(handled=plan.PROGRAM))
        monkeypatch.setattr(command, "Host", lambda: Host(tmp_path / "root"))
        return CliRunner().invoke(app, list(words))

    return call


def test_the_commands_say_what_they_did_and_what_is_left(run, tmp_path):
    files = (
        f"--program={tmp_path / 'kybernate-runc'}",
        f"--criu-plugin={tmp_path / 'plugin'}",
        f"--guest-library={tmp_path / 'guest'}",
    )
    done = run(BARE, "install-node", *files, "--check")
    assert done.exit_code == 0
    assert f"would write {plan.PROGRAM}" in done.output
    assert not (tmp_path / "root").exists()
    done = run(BARE, "install-node", *files)
    assert done.exit_code == 0
    assert f"left to do: {distributions.RESTART}" in done.output
    done = run(INSTALLED, "uninstall-node")
    assert done.exit_code == 0
    assert f"removed {plan.PROGRAM}" in done.output


def test_a_refusal_ends_with_1_and_its_reasons(run):
    containers = (Container(id="a", pod="default/model"),)
    refused = run(replace(INSTALLED, containers=containers), "uninstall-node")
    assert refused.exit_code == 1
    assert "default/model" in refused.stderr
    assert run(BARE, "install-node", "--program", "/not/there").exit_code == 1
