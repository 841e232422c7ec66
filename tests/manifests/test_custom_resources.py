"""What the kinds take, and in which words the real API server refuses the rest."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]

NODE, WORKLOAD = "gpunodes", "gpuworkloads"
CHECKPOINT, POLICY = "gpucheckpoints", "checkpointpolicies"
CREQ, RREQ = "checkpointrequests", "restorerequests"
PLACEMENT = "tierplacements"
TEMPLATE = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "m", "image": "m"}]},
}
SEAT = "kyb.ai/gpu-1x-seat"
NOW = "2026-01-31T12:00:00Z"
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "AgentReports",
    "message": "",
    "lastTransitionTime": NOW,
}
GOOD: dict[str, tuple[Object, Object]] = {
    "gpunodes": (
        {},
        {
            "product": "NVIDIA H100 80GB HBM3",
            "driver": "580.65.06",
            "gpus": [
                {
                    "index": 0,
                    "uuid": "GPU-6f0c",
                    "memoryBytes": 85899345920,
                    "usedBytes": 42949672960,
                    "health": "Healthy",
                    "numa": 0,
                }
            ],
            "groups": [
                {
                    "name": "G0",
                    "gpus": [0],
                    "resource": SEAT,
                    "profile": "gpu-1x-seat",
                    "seats": 6,
                    "activePerGroup": 1,
                    "vramBytes": 85899345920,
                    "health": "Healthy",
                }
            ],
            "tenants": [
                {
                    "workload": {"namespace": "default", "name": "llama-b", "uid": "u1"},
                    "group": "G0",
                    "seat": "G0/2",
                    "state": "Active",
                    "vramBytes": 42949672960,
                    "class": "inference",
                    "priority": -5,
                    "minRuntimeUntil": NOW,
                    "tier": "vram",
                }
            ],
            "tiers": [{"tier": "ram", "capacityBytes": 429496729600, "usedBytes": 0}],
            "bandwidths": [{"tier": "ram", "bytesPerSecond": 46000000000, "spreadPercent": 10}],
            "mechanisms": ["simulated"],
            "policyRevision": "sha256:0123456789ab",
            "observedAt": NOW,
            "summary": {
                "gpus": 1,
                "seats": "5/6",
                "active": "default/llama-b on G0",
                "waiting": 2,
                "ram": "80 GiB of 400 GiB",
            },
            "conditions": [READY],
        },
    ),
    "gpuworkloads": (
        {"podUID": "u1", "resource": SEAT, "class": "training", "priority": 1000, "vramBytes": 1},
        {
            "state": "Parked",
            "node": "node-a",
            "group": "G0",
            "seat": "G0/2",
            "tier": "ram",
            "mechanism": "simulated",
            "why": "parked for default/llama-c, which waited 12.1 s",
            "since": NOW,
            "secondsIn": {"Active": 61.25, "Waiting": 3},
            "lastSwitch": {
                "seconds": 0.91,
                "phases": [{"name": "copy out", "seconds": 0.88, "bytes": 42949672960}],
            },
            "placement": {"estimateSeconds": 4.1, "text": "4.1 s = park llama-b 1.2 + ..."},
            "decisions": [
                {
                    "time": NOW,
                    "reason": "Parked",
                    "message": "parked in 0.9 s",
                    "revision": "sha256:0123456789ab",
                    "seconds": 0.91,
                }
            ],
            "conditions": [],
        },
    ),
    "gpucheckpoints": (
        {"workload": "statefulset.llama.0", "gold": False, "node": "node-a"},
        {
            "sizeBytes": 42949672960,
            "size": "40.0 GiB",
            "sealedAt": NOW,
            "fingerprint": "sha256:aa",
            "copies": [{"node": "node-a", "tier": "nvme"}, {"tier": "object"}],
            "signature": "c2ln",
            "claim": {"podUID": "u1", "node": "node-a", "pod": "llama-0"},
            "conditions": [{**READY, "reason": "Sealed"}],
        },
    ),
    "checkpointpolicies": (
        {
            "selector": {
                "matchLabels": {"kind": "training"},
                "matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}],
            },
            "every": "5m",
            "keep": 3,
            "tiers": {"nvmeAfter": "10m", "objectAfter": "1h30m"},
            "preemptionClass": "background",
            "windows": [
                {"days": ["Mon"], "from": "20:00", "to": "08:00", "timeZone": "Europe/Berlin"}
            ],
        },
        {"observedGeneration": 1, "workloads": 2, "conditions": [READY]},
    ),
    "checkpointrequests": (
        {
            "workload": "llama-0",
            "name": "before-the-upgrade",
            "leave": "Parked",
            "within": "5m",
            "forgetAfter": "1h30m",
        },
        {
            "state": "Running",
            "reason": "AgentAsked",
            "message": "the agent of node-a seals it",
            "checkpoint": "before-the-upgrade",
            "podUID": "u1",
            "node": "node-a",
            "startedAt": NOW,
            "progress": {
                "phase": "sealing",
                "bytesDone": 1,
                "bytesTotal": 4,
                "percent": 25,
                "secondsLeft": 1.5,
            },
        },
    ),
    "tierplacements": (
        {
            "checkpoint": "llama-1",
            "copies": [{"node": "node-a", "tier": "nvme"}, {"node": "", "tier": "object"}],
            "others": "Remove",
        },
        {"wanted": 1, "there": 1, "conditions": [{**READY, "type": "Placed"}]},
    ),
    "restorerequests": (
        {"checkpoint": "llama-1", "pod": {"name": "again", "template": TEMPLATE}},
        {
            "state": "Succeeded",
            "reason": "Woke",
            "message": "pod again woke on node-b",
            "pod": "again",
            "podUID": "u2",
            "node": "node-b",
            "startedAt": NOW,
            "finishedAt": NOW,
        },
    ),
}
KINDS = {
    "gpunodes": "GpuNode",
    "gpuworkloads": "GpuWorkload",
    "gpucheckpoints": "GpuCheckpoint",
    "checkpointpolicies": "CheckpointPolicy",
    "checkpointrequests": "CheckpointRequest",
    "restorerequests": "RestoreRequest",
    "tierplacements": "TierPlacement",
}
ABSENT = object()


def _path(plural: str, namespace: str) -> str:
    where = "" if plural == "gpunodes" else f"/namespaces/{namespace}"
    return f"/apis/kyb.ai/v1alpha1{where}/{plural}"


def _object(plural: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": "kyb.ai/v1alpha1",
        "kind": KINDS[plural],
        "metadata": {"name": name},
        "spec": spec,
    }


def _with(value: Object, path: str, new: object) -> Object:
    """A copy in which the dotted path (numbers index lists) has another value, or none."""
    changed = copy.deepcopy(value)
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at: Any = changed
    for part in above:
        at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
    if new is ABSENT:
        del at[last]
    else:
        at[last] = new
    return changed


@pytest.fixture
def made(admin: Any, namespace: str, new_name: Callable[[str], str]) -> Callable[..., str]:
    """Makes a good object of a kind, with its status, and answers its path."""

    def make(plural: str, spec: Object | None = None, status: Object | None = None) -> str:
        name = new_name("made")
        path = _path(plural, namespace)
        created = admin.create(path, _object(plural, name, spec or GOOD[plural][0]))
        assert created.status == 201, created.message
        status = GOOD[plural][1] if status is None else status
        written = admin.merge(f"{path}/{name}/status", {"status": status})
        assert written.status == 200, written.message
        return f"{path}/{name}"

    return make


@pytest.mark.parametrize("plural", GOOD)
def test_a_good_object_is_kept_as_it_was_written(
    admin: Any, made: Callable[..., str], plural: str
) -> None:
    spec, status = GOOD[plural]
    kept = admin.get(made(plural)).body
    assert kept["status"] == status
    assert {name: kept.get("spec", {}).get(name) for name in spec} == spec


def test_what_is_left_out_gets_the_defaults_of_the_reference(
    admin: Any, made: Callable[..., str]
) -> None:
    workload = admin.get(made("gpuworkloads", {"podUID": "u", "resource": SEAT}, {})).body["spec"]
    assert (workload["desired"], workload["class"], workload["priority"]) == (
        "Auto",
        "inference",
        0,
    )
    policy = {"selector": {}, "windows": [{"from": "20:00", "to": "08:00"}]}
    kept = admin.get(made("checkpointpolicies", policy, {})).body["spec"]
    assert (kept["keep"], kept["windows"][0]["timeZone"]) == (3, "UTC")
    assert admin.get(made("gpucheckpoints", {"workload": "x"}, {})).body["spec"]["gold"] is False
    placed = admin.get(made("tierplacements", {"checkpoint": "x", "copies": [{"node": "a"}]}, {}))
    assert (placed.body["spec"]["others"], placed.body["spec"]["copies"][0]["tier"]) == (
        "Keep",
        "nvme",
    )
    asked = admin.get(made("checkpointrequests", {"workload": "x"}, {})).body["spec"]
    assert (asked["leave"], asked["within"], asked["forgetAfter"]) == ("Running", "15m", "1h")


WINDOW = {"from": "20:00", "to": "08:00"}


@pytest.mark.parametrize(
    ("plural", "path", "value", "words"),
    [
        pytest.param(
            WORKLOAD, "desired", "Running",
            'supported values: "Auto", "Active", "Parked"', id="desired-is-no-wish",
        ),
        pytest.param(WORKLOAD, "podUID", ABSENT, "spec.podUID: Required", id="no-pod-uid"),
        pytest.param(WORKLOAD, "podUID", "", "spec.podUID", id="empty-pod-uid"),
        pytest.param(WORKLOAD, "resource", "nvidia.com/gpu", "should match", id="foreign-resource"),
        pytest.param(WORKLOAD, "vramBytes", 0, "greater than or equal to 1", id="no-vram"),
        pytest.param(WORKLOAD, "vramBytes", 1.5, "must be of type integer", id="half-a-byte"),
        pytest.param(WORKLOAD, "vramBytes", "40Gi", "must be of type integer", id="vram-as-text"),
        pytest.param(
            WORKLOAD, "class", "interactive",
            'supported values: "inference", "training", "batch"', id="unknown-class",
        ),
        pytest.param(
            PLACEMENT, "copies", [{"tier": "nvme"}],
            "a copy in nvme is on a node", id="placed-nowhere",
        ),
        pytest.param(
            PLACEMENT, "copies", [{"tier": "object", "node": "a"}],
            "a copy in object storage is on none", id="placed-in-object-storage-of-a-node",
        ),
        pytest.param(
            PLACEMENT, "copies", [{"tier": "object"}, {"tier": "object"}], "Duplicate value",
            id="placed-there-twice",
        ),
        pytest.param(
            PLACEMENT, "copies", [{"tier": "ram", "node": "a"}], "Unsupported value",
            id="placed-in-ram",
        ),
        pytest.param(CHECKPOINT, "workload", "../etc/passwd", "should match", id="a-path"),
        pytest.param(CHECKPOINT, "workload", ABSENT, "spec.workload: Required", id="of-nobody"),
        pytest.param(POLICY, "selector", ABSENT, "spec.selector: Required", id="no-selector"),
        pytest.param(POLICY, "keep", 0, "greater than or equal to 1", id="keep-none"),
        pytest.param(POLICY, "every", "5", "spec.every", id="number-without-unit"),
        pytest.param(POLICY, "every", "1d", "should match", id="days"),
        pytest.param(POLICY, "every", "5s", "every must be at least 10s", id="too-often"),
        pytest.param(
            POLICY, "tiers", {"nvmeAfter": "2h", "objectAfter": "1h"},
            "nvmeAfter must not be later than objectAfter", id="colder-first",
        ),
        pytest.param(
            POLICY, "windows", [WINDOW | {"from": "8pm"}],
            "from must be HH:MM on the 24-hour clock, like 20:00", id="window-from",
        ),
        pytest.param(
            POLICY, "windows", [WINDOW | {"to": "24:00"}],
            "to must be HH:MM on the 24-hour clock, like 08:00", id="window-to",
        ),
        pytest.param(
            POLICY, "windows", [WINDOW | {"to": "20:00"}],
            "must not begin and end at the same minute", id="window-of-nothing",
        ),
        pytest.param(
            POLICY, "windows", [WINDOW | {"days": ["Monday"]}],
            "Unsupported value", id="window-day",
        ),
        pytest.param(
            POLICY, "windows", [WINDOW | {"days": ["Mon", "Mon"]}],
            "Duplicate value", id="window-day-twice",
        ),
        pytest.param(
            POLICY, "windows", [{"from": "20:00"}], "to: Required", id="open-window"
        ),
        pytest.param(
            POLICY, "selector", {"matchExpressions": [{"key": "a", "operator": "In"}]},
            "In and NotIn need values", id="in-nothing",
        ),
        pytest.param(
            POLICY, "selector",
            {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
            "Exists and DoesNotExist have none", id="exists-with-values",
        ),
        pytest.param(CREQ, "workload", ABSENT, "spec.workload: Required", id="seal-nobody"),
        pytest.param(CREQ, "workload", "../a", "should match", id="seal-a-path"),
        pytest.param(
            CREQ, "leave", "Dead", 'supported values: "Running", "Parked"', id="leave-dead"
        ),
        pytest.param(CREQ, "within", "1s", "within must be at least 10s", id="within-a-second"),
        pytest.param(CREQ, "within", "600", "spec.within", id="within-without-unit"),
        pytest.param(CREQ, "forgetAfter", "1d", "should match", id="forget-after-days"),
        pytest.param(RREQ, "checkpoint", ABSENT, "spec.checkpoint: Required", id="from-nothing"),
        pytest.param(
            RREQ, "pod", ABSENT, "exactly one of pod and owner is needed", id="wake-nobody"
        ),
        pytest.param(
            RREQ, "owner", {"kind": "Deployment", "name": "chat"},
            "exactly one of pod and owner is needed", id="wake-both",
        ),
        pytest.param(
            RREQ, "owner", {"kind": "Job", "name": "chat"},
            'supported values: "Deployment", "StatefulSet"', id="wake-a-job",
        ),
        pytest.param(
            RREQ, "pod.template.spec.containers", [], "at least 1 items", id="no-containers"
        ),
    ],
)  # fmt: skip
def test_a_bad_spec_is_refused_in_words(
    admin: Any,
    namespace: str,
    new_name: Callable[[str], str],
    plural: str,
    path: str,
    value: object,
    words: str,
) -> None:
    spec = _with(GOOD[plural][0], path, value)
    answer = admin.create(_path(plural, namespace), _object(plural, new_name("bad"), spec))
    assert answer.status == 422
    assert words in answer.message


@pytest.mark.parametrize(
    ("plural", "path", "value", "words"),
    [
        pytest.param(NODE, "gpus.0.health", "Poorly", "Unsupported value", id="health"),
        pytest.param(NODE, "gpus.0.memoryBytes", -1, "greater than or equal to 0", id="bytes"),
        pytest.param(NODE, "gpus.0.uuid", ABSENT, "uuid: Required", id="gpu-without-uuid"),
        pytest.param(NODE, "groups.0.seats", 0, "greater than or equal to 1", id="no-seats"),
        pytest.param(NODE, "groups.0.gpus", [], "at least 1 items", id="group-of-nothing"),
        pytest.param(NODE, "groups.0.gpus", [0, 0], "Duplicate value", id="gpu-twice"),
        pytest.param(NODE, "groups.0.resource", "cpu", "should match", id="resource"),
        pytest.param(NODE, "tenants.0.state", "Sleeping", "Unsupported value", id="state"),
        pytest.param(NODE, "bandwidths.0.bytesPerSecond", 0, "or equal to 1", id="no-rate"),
        pytest.param(NODE, "mechanisms", ["magic"], "Unsupported value", id="mechanism"),
        pytest.param(NODE, "observedAt", "yesterday", "date-time", id="time"),
        pytest.param(NODE, "conditions.0.reason", ABSENT, "reason: Required", id="no-reason"),
        pytest.param(WORKLOAD, "state", "Running", "Unsupported value", id="no-such-state"),
        pytest.param(WORKLOAD, "tier", "tape", "Unsupported value", id="no-such-tier"),
        pytest.param(WORKLOAD, "secondsIn", {"Active": -1}, "or equal to 0", id="seconds"),
        pytest.param(
            WORKLOAD, "decisions", [GOOD[WORKLOAD][1]["decisions"][0]] * 11,
            "at most 10 items", id="eleven-decisions",
        ),
        pytest.param(WORKLOAD, "decisions.0.reason", "was parked", "should match", id="reason"),
        pytest.param(
            CHECKPOINT, "copies", [{"tier": "nvme"}],
            "a copy in ram or nvme is on a node", id="copy-nowhere",
        ),
        pytest.param(
            CHECKPOINT, "copies", [{"tier": "object", "node": "a"}],
            "a copy in object storage is on none", id="object-copy-on-a-node",
        ),
        pytest.param(
            CHECKPOINT, "copies", [{"tier": "vram", "node": "a"}], "Unsupported", id="in-vram"
        ),
        pytest.param(CHECKPOINT, "claim", {"node": "a"}, "podUID: Required", id="claim-of-nobody"),
        pytest.param(CREQ, "state", "Done", "Unsupported value", id="request-state"),
        pytest.param(CREQ, "progress.percent", 101, "less than or equal to 100", id="percent"),
        pytest.param(RREQ, "reason", "it was claimed", "should match", id="restore-reason"),
        pytest.param(CHECKPOINT, "claim.pod", ABSENT, "pod: Required", id="claim-of-no-pod"),
    ],
)  # fmt: skip
def test_a_bad_status_is_refused_in_words(
    admin: Any, made: Callable[..., str], plural: str, path: str, value: object, words: str
) -> None:
    status = _with(GOOD[plural][1], path, value)
    answer = admin.merge(f"{made(plural, status={})}/status", {"status": status})
    assert answer.status == 422
    assert words in answer.message


@pytest.mark.parametrize(
    ("plural", "field", "value", "words"),
    [
        pytest.param("gpuworkloads", "podUID", "u2", "podUID is immutable", id="pod"),
        pytest.param(
            "gpuworkloads", "resource", "kyb.ai/gpu-2x-seat", "resource is immutable", id="seat"
        ),
        pytest.param("gpucheckpoints", "gold", True, "gold is immutable", id="gold"),
        pytest.param(
            "gpucheckpoints", "workload", "Job/x/1", "workload is immutable", id="workload"
        ),
        pytest.param(CREQ, "workload", "llama-1", "workload is immutable", id="sealed-workload"),
        pytest.param(CREQ, "name", None, "name is immutable", id="checkpoint-name"),
        pytest.param(CREQ, "leave", "Running", "leave is immutable", id="leave"),
        pytest.param(RREQ, "checkpoint", "other", "checkpoint is immutable", id="checkpoint"),
        pytest.param("gpucheckpoints", "node", "node-b", "node is immutable", id="sealed-on"),
    ],
)
def test_what_an_object_is_about_never_changes(
    admin: Any, made: Callable[..., str], plural: str, field: str, value: object, words: str
) -> None:
    answer = admin.merge(made(plural), {"spec": {field: value}})
    assert answer.status == 422
    assert words in answer.message


@pytest.mark.parametrize("field", ["sizeBytes", "fingerprint", "signature", "sealedAt"])
def test_a_sealed_checkpoint_stays_what_it_was(
    admin: Any, made: Callable[..., str], field: str
) -> None:
    path = f"{made('gpucheckpoints')}/status"
    other = {"sizeBytes": 7, "sealedAt": "2026-02-01T12:00:00Z"}.get(field, "other")
    for value in (other, None):
        answer = admin.merge(path, {"status": {field: value}})
        assert f"{field} of a sealed checkpoint is immutable" in answer.message


def test_a_claim_that_is_taken_can_be_freed_and_not_taken_over(
    admin: Any, made: Callable[..., str]
) -> None:
    path = f"{made('gpucheckpoints')}/status"
    other = {"podUID": "u2", "node": "node-b", "pod": "llama-0"}
    refused = admin.merge(path, {"status": {"claim": other}})
    assert "claim is taken" in refused.message
    assert admin.merge(path, {"status": {"claim": None}}).status == 200
    assert admin.merge(path, {"status": {"claim": other}}).status == 200


@pytest.mark.parametrize("plural", [CREQ, RREQ])
def test_a_request_that_has_finished_stays_finished(
    admin: Any, made: Callable[..., str], plural: str
) -> None:
    path = f"{made(plural, status={'state': 'Failed'})}/status"
    for state in ("Running", None):
        answer = admin.merge(path, {"status": {"state": state}})
        assert "state of a finished request stays" in answer.message
    assert admin.merge(path, {"status": {"message": "why"}}).status == 200


def test_a_gold_image_is_shared_and_never_claimed(admin: Any, made: Callable[..., str]) -> None:
    path = made("gpucheckpoints", {"workload": "x", "gold": True}, {})
    claim = {"podUID": "u", "node": "n", "pod": "p"}
    answer = admin.merge(f"{path}/status", {"status": {"claim": claim}})
    assert "a gold image is shared and cannot be claimed" in answer.message


def test_a_misspelt_field_is_refused_where_the_writer_is_strict(
    admin: Any, namespace: str, new_name: Callable[[str], str]
) -> None:
    spec = GOOD["gpuworkloads"][0] | {"desird": "Parked"}
    path = f"{_path('gpuworkloads', namespace)}?fieldValidation=Strict"
    answer = admin.create(path, _object("gpuworkloads", new_name("bad"), spec))
    assert 'unknown field "spec.desird"' in answer.message


@pytest.mark.parametrize("plural", GOOD)
def test_a_status_is_written_by_its_own_path_only(
    admin: Any, made: Callable[..., str], plural: str
) -> None:
    path = made(plural, status={})
    assert admin.merge(path, {"status": GOOD[plural][1]}).status == 200
    untouched = {"state": "Absent"} if plural == WORKLOAD else {}
    assert admin.get(path).body.get("status", {}) == untouched


def test_every_field_says_what_it_is(built: Callable[[str], list[Object]]) -> None:
    silent = [
        f"{one['spec']['names']['kind']}{path}"
        for one in built("components/crd")
        for version in one["spec"]["versions"]
        for path, schema in _fields(version["schema"]["openAPIV3Schema"], "")
        if "description" not in schema
    ]
    assert silent == []


def _fields(schema: Object, path: str) -> list[tuple[str, Object]]:
    found = []
    for name, below in schema.get("properties", {}).items():
        if path or name in ("spec", "status"):
            found += [(f"{path}.{name}", below), *_fields(below, f"{path}.{name}")]
    if "items" in schema:
        found += _fields(schema["items"], f"{path}[]")
    return found
