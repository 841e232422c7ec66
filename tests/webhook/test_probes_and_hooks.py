"""Probes and preStop hooks of seat containers become the agent's to answer; nobody else's do."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.api import names, probes
from webhook import defaulting, hooks, validation
from webhook.defaulting import Terms

HTTP = {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}}
TIMES = {
    "initialDelaySeconds": 7,
    "periodSeconds": 5,
    "timeoutSeconds": 2,
    "successThreshold": 1,
    "failureThreshold": 4,
}
SCHEDULERS = {"default-scheduler"}
SEALED = {names.ON_DELETE: "checkpoint", names.VRAM: "30Gi"}
HOOK = {"exec": {"command": ["sh", "-c", "bye"]}}


@pytest.fixture
def admitted(a_pod, a_container, patched):
    """`admitted(container fields, annotations, **spec)`: the seat container, and the whole pod."""

    def make(fields, annotations=None, **spec):
        container = a_container(limits={"kyb.ai/gpu-1x-seat": "1"}) | copy.deepcopy(fields)
        side, sidecar = (a_container(name) | copy.deepcopy(fields) for name in ("side", "sidecar"))
        pod = a_pod(side, container, annotations=annotations, **spec)
        pod["spec"]["initContainers"] = [sidecar]
        before = copy.deepcopy(pod)
        result = patched(pod, defaulting.complete(pod, Terms()))
        assert result["spec"]["containers"][0] == before["spec"]["containers"][0]
        assert result["spec"]["initContainers"] == before["spec"]["initContainers"]
        assert defaulting.complete(result, Terms()) == ()
        return result["spec"]["containers"][1], result

    return make


def spec_of(probe):
    return json.loads(probe["exec"]["command"][2])


@pytest.mark.parametrize("field", ["livenessProbe", "readinessProbe", "startupProbe"])
def test_times_and_thresholds_stay_and_the_timeout_is_the_agents(admitted, field):
    more = {"terminationGracePeriodSeconds": 9} if field != "readinessProbe" else {}
    container, pod = admitted({field: {**HTTP, **TIMES, **more}})
    made = container[field]
    kept = {name: made[name] for name in TIMES if name != "timeoutSeconds"}
    assert kept == {name: TIMES[name] for name in kept}
    assert made["timeoutSeconds"] == 2 + probes.BEYOND
    assert {name: made[name] for name in more} == more
    assert made["exec"]["command"][:2] == ["kyb-probe", field.removesuffix("Probe")]
    assert spec_of(made) == {
        "httpGet": {"port": 8080, "path": "/healthz"},
        "delay": 7, "period": 5, "timeout": 2, "failures": 4,
    }  # fmt: skip
    assert "httpGet" not in made
    assert validation.faults(pod, SCHEDULERS) == ()


@pytest.mark.parametrize(
    ("action", "travels"),
    [
        pytest.param({"tcpSocket": {"port": 80}}, {"tcpSocket": {"port": 80}}, id="tcp"),
        pytest.param({"tcpSocket": {"port": "web"}}, {"tcpSocket": {"port": 8080}}, id="named"),
        pytest.param({"tcpSocket": {"port": "80"}}, {"tcpSocket": {"port": 80}}, id="digits"),
        pytest.param(
            {"grpc": {"port": 90, "service": "s"}}, {"grpc": {"port": 90, "service": "s"}},
            id="grpc",
        ),
        pytest.param({"grpc": {"port": 90, "service": None}}, {"grpc": {"port": 90}}, id="server"),
        pytest.param(
            {"httpGet": {"port": 1, "scheme": "HTTPS", "httpHeaders": [
                {"name": "Authorization", "value": "Bearer x"}]}},
            {"httpGet": {"port": 1, "path": "/", "scheme": "HTTPS", "httpHeaders": [
                {"name": "Authorization", "value": "Bearer x"}]}},
            id="https-with-headers",
        ),
    ],
)  # fmt: skip
def test_what_is_asked_travels_whole(admitted, action, travels):
    ports = [{"name": "web", "containerPort": 8080}]
    container, _ = admitted({"livenessProbe": action, "ports": ports})
    spec = spec_of(container["livenessProbe"])
    assert {name: spec[name] for name in travels} == travels


def test_a_users_command_stands_behind_the_dashes_as_it_came(admitted):
    command = ["sh", "-c", "-- test", "--", ""]
    container, _ = admitted({"livenessProbe": {"exec": {"command": command}}})
    assert container["livenessProbe"]["exec"]["command"][3:] == ["--", *command]


def test_a_startup_probes_patience_goes_on_in_the_others(admitted):
    startup = {**HTTP, "initialDelaySeconds": 10, "periodSeconds": 5, "failureThreshold": 60}
    container, _ = admitted({"startupProbe": startup, "livenessProbe": HTTP})
    assert spec_of(container["livenessProbe"])["startup"] == 310
    assert "startup" not in spec_of(container["startupProbe"])


def test_a_named_port_that_is_not_there_is_let_be_as_the_kubelet_does(admitted):
    probe = {"tcpSocket": {"port": "web"}}
    container, pod = admitted({"livenessProbe": probe})
    assert container["livenessProbe"] == probe
    assert validation.faults(pod, SCHEDULERS) == ()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["kyb-probe"], id="alone"),
        pytest.param(["kyb-probe", "x"], id="short"),
        pytest.param(["kyb-probe", "readiness", "{}"], id="of-another-kind"),
        pytest.param(["kyb-probe", "liveness", "{", "--", "ls"], id="no-json"),
        pytest.param(["kyb-probe", "liveness", '{"hostPort":1}'], id="unknown"),
        pytest.param(["kyb-probe", "liveness", "{}", "--", "kyb-probe"], id="nested"),
    ],
)
def test_a_command_that_only_looks_like_ours_is_refused(admitted, command):
    _, pod = admitted({"livenessProbe": {"exec": {"command": command}}})
    (fault,) = validation.faults(pod, SCHEDULERS)
    assert fault.path == "spec.containers[1].livenessProbe.exec.command"
    assert fault.value == command
    assert "written by the webhook alone" in fault.expected


def test_one_that_slipped_past_us_is_refused(a_pod, a_container):
    fields = {"livenessProbe": HTTP, "lifecycle": {"preStop": HOOK}}
    container = a_container(limits={"kyb.ai/gpu-1x-seat": "1"}) | fields
    pod = a_pod(container, runtimeClassName="kybernate")
    paths = [fault.path for fault in validation.faults(pod, SCHEDULERS)]
    assert paths == ["spec.containers[0].livenessProbe", "spec.containers.0.lifecycle.preStop"]


def test_one_too_long_to_travel_is_refused(admitted):
    headers = [{"name": "X", "value": "y" * probes.LONGEST}]
    long = {"httpGet": {"port": 1, "httpHeaders": headers}}
    _, pod = admitted({"livenessProbe": long, "lifecycle": {"preStop": long}})
    faults = validation.faults(pod, SCHEDULERS)
    assert [fault.path.rsplit(".", 1)[1] for fault in faults] == ["livenessProbe", "preStop"]
    assert {fault.expected.split(" bytes")[0] for fault in faults} == {f"at most {probes.LONGEST}"}


def test_a_post_start_hook_of_a_seat_container_is_refused_with_what_to_do(admitted):
    _, pod = admitted({"lifecycle": {"postStart": HOOK}})
    (fault,) = validation.faults(pod, SCHEDULERS)
    assert fault.path == "spec.containers[1].lifecycle.postStart"
    assert "container's own command" in fault.expected


def test_a_pods_own_hook_is_kept_and_its_grace_period_too(admitted):
    lifecycle = {"preStop": HOOK, "stopSignal": "SIGQUIT"}
    container, pod = admitted({"lifecycle": lifecycle}, terminationGracePeriodSeconds=45)
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["kyb-probe", "prestop", '{"grace":45}', "--", "sh", "-c", "bye"]
    assert container["lifecycle"]["stopSignal"] == "SIGQUIT"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 45
    assert validation.faults(pod, SCHEDULERS) == ()


@pytest.mark.parametrize("own", [None, 0, 45])
def test_one_that_is_to_be_sealed_gets_the_hook_and_the_time_for_it(admitted, own):
    spec = {} if own is None else {"terminationGracePeriodSeconds": own}
    container, pod = admitted({}, SEALED, **spec)
    grace = 30 if own is None else own
    hook = container["lifecycle"]["preStop"]
    assert hook["exec"]["command"] == ["kyb-probe", "prestop", f'{{"grace":{grace},"seal":true}}']
    assert pod["spec"]["terminationGracePeriodSeconds"] == grace + hooks.seal_seconds(30 * 2**30)
    assert validation.faults(pod, SCHEDULERS) == ()


def test_time_to_seal_goes_with_the_bytes(admitted):
    assert hooks.seal_seconds(3_000_000_000) == 30
    assert hooks.seal_seconds(None) > hooks.seal_seconds(40 * 2**30)


def test_the_wish_may_come_from_policy(a_pod, patched):
    pod = a_pod()
    result = patched(pod, defaulting.complete(pod, Terms(defaults=SEALED)))
    assert "preStop" in result["spec"]["containers"][0]["lifecycle"]


def test_a_copied_pod_whose_wish_is_gone_gets_its_own_grace_period_back(admitted, patched):
    _, pod = admitted({}, SEALED, terminationGracePeriodSeconds=45)
    del pod["metadata"]["annotations"][names.ON_DELETE]
    result = patched(pod, defaulting.complete(pod, Terms()))
    assert result["spec"]["terminationGracePeriodSeconds"] == 45


_NUMBER = st.none() | st.booleans() | st.integers(-1, 2**33) | st.just("5")
_PORT = st.none() | st.integers(-1, 70000) | st.sampled_from(["web", "80", "x", ""])
_WORD = st.sampled_from(["kyb-probe", "liveness", "prestop", "{}", '{"period":3}', "--", "ls", ""])
_ACTION = st.fixed_dictionaries(
    {},
    optional={
        "exec": st.none() | st.fixed_dictionaries({"command": st.none() | st.lists(_WORD)}),
        "httpGet": st.none()
        | st.fixed_dictionaries(
            {"port": _PORT},
            optional={
                "path": st.none() | st.text(max_size=5),
                "scheme": st.sampled_from(["HTTP", "HTTPS", "ftp", ""]),
                "httpHeaders": st.none()
                | st.lists(st.fixed_dictionaries({"name": st.just("a")}, optional={
                    "value": st.none() | st.just("b")})),
            },
        ),
        "tcpSocket": st.fixed_dictionaries({"port": _PORT}),
        "grpc": st.fixed_dictionaries({"port": _PORT}),
        "sleep": st.none() | st.fixed_dictionaries({"seconds": _NUMBER}),
    },
)  # fmt: skip
_TIMED = st.tuples(_ACTION, st.fixed_dictionaries({}, optional=dict.fromkeys(TIMES, _NUMBER))).map(
    lambda parts: {**parts[0], **parts[1]}
)


@given(
    liveness=st.none() | _TIMED,
    startup=st.none() | _TIMED,
    hook=st.none() | _ACTION,
    seal=st.booleans(),
    grace=st.none() | st.integers(0, 1000),
)
def test_whatever_a_pod_has_completing_it_twice_is_completing_it_once(
    a_pod, a_container, patched, liveness, startup, hook, seal, grace
):
    container = a_container(limits={"kyb.ai/gpu-1x-seat": "1"})
    container |= {"livenessProbe": liveness, "startupProbe": startup}
    container |= {"lifecycle": {"preStop": hook}, "ports": [{"name": "web", "containerPort": 80}]}
    pod = a_pod(container, annotations=SEALED if seal else None)
    pod["spec"]["terminationGracePeriodSeconds"] = grace
    result = patched(pod, defaulting.complete(pod, Terms()))
    assert defaulting.complete(result, Terms()) == ()
    validation.faults(result, SCHEDULERS)
