"""The device plugin as a program, seen from the kubelet's side."""

import pytest

from testbed.lightnode.plugins import NotAdmitted

ONE, TWO = "kyb.ai/gpu-1x-seat", "kyb.ai/gpu-2x-seat"


@pytest.fixture
def ready(kubelet, plugin, gpus, until):
    """A kubelet that knows all seats."""
    side = kubelet()
    plugin()
    until(lambda: side.counts() == {ONE: (4, 4), TWO: (1, 1)})
    return side


def ids(side, uid):
    return [one for grant in side.granted(uid) for one in grant.ids]


def test_seats_are_told_and_given(ready):
    ready.admit("pod-1", "main", {ONE: 1})
    assert ids(ready, "pod-1") == ["G0/0"]
    assert ready.environment("pod-1")["KYB_GPU_SEAT"] == "seat-0"


def test_without_an_agent_pods_spread_over_groups(ready):
    for number in range(4):
        ready.admit(f"pod-{number}", "main", {ONE: 1})
    assert [ids(ready, f"pod-{n}")[0] for n in range(4)] == ["G0/0", "G1/0", "G0/1", "G1/1"]


def test_the_agents_preference_is_followed(ready, agent):
    agent.answer = ("G1/1",)
    ready.admit("pod", "main", {ONE: 1})
    assert ids(ready, "pod") == ["G1/1"]
    (asked,) = agent.asked
    assert (asked.resource, asked.size, len(asked.available)) == (ONE, 1, 4)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((), id="nothing"),
        pytest.param(("G7/0",), id="unknown"),
        pytest.param(("G1/0", "G1/1"), id="too-many"),
    ],
)
def test_a_preference_that_cannot_be_had_is_left_aside(ready, agent, answer):
    agent.answer = answer
    ready.admit("pod", "main", {ONE: 1})
    assert ids(ready, "pod") == ["G0/0"]


def test_two_seats_in_one_container_are_refused_in_words(ready):
    with pytest.raises(NotAdmitted, match="one seat"):
        ready.admit("greedy", "main", {ONE: 2})
    assert ready.granted("greedy") == ()


def test_health_goes_both_ways(ready, gpus, until):
    with gpus.changing():
        gpus.cards["GPU-1"].healthy = False
    until(lambda: ready.counts() == {ONE: (4, 2), TWO: (1, 0)})
    with gpus.changing():
        gpus.cards["GPU-1"].healthy = True
    until(lambda: ready.counts() == {ONE: (4, 4), TWO: (1, 1)})


def test_a_kubelet_that_began_anew_is_registered_with_again(ready, kubelet, until):
    ready.admit("pod", "main", {ONE: 1})
    new = kubelet()
    until(lambda: new.counts() == {ONE: (4, 4), TWO: (1, 1)})
    assert ids(new, "pod") == ["G0/0"]
    new.admit("pod", "main", {ONE: 1})
    assert ids(new, "pod") == ["G0/0"]


def test_a_kubelet_that_comes_later_is_found(kubelet, plugin, gpus, work, until):
    (work / "plugins").mkdir()
    plugin()
    side = kubelet()
    until(lambda: side.counts() == {ONE: (4, 4), TWO: (1, 1)})


def test_gpus_that_come_later_are_waited_for(kubelet, plugin, request, until):
    side = kubelet()
    plugin()
    request.getfixturevalue("gpus")
    until(lambda: side.counts() == {ONE: (4, 4), TWO: (1, 1)})


def test_a_stopped_plugin_leaves_no_socket(kubelet, plugin, gpus, work, until):
    side = kubelet()
    process = plugin()
    until(lambda: side.counts() == {ONE: (4, 4), TWO: (1, 1)})
    process.terminate()
    process.communicate()
    assert process.returncode == 0
    assert [path.name for path in (work / "plugins").iterdir() if path.is_socket()] == [
        "kubelet.sock"
    ]
    until(lambda: side.counts() == {ONE: (4, 0), TWO: (1, 0)})


def test_a_faulty_profile_file_is_told_in_full_and_ends_it(plugin, gpus):
    process = plugin(
        profiles="profiles: [{name: a, resource: kyb.ai/gpu-1x-seat, groupSize: 2, seats: 1}]"
    )
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "profiles[0].seatsPerGroup" in errors
    assert "profiles[0].seats: 1" in errors


def test_seats_on_a_card_that_is_not_there_are_unhealthy_and_all_others_are_given(
    kubelet, plugin, gpus, until
):
    side = kubelet()
    listed = "gpuTopology: {groups: [{name: far, gpus: [0, 7]}]}"
    two = "{name: b, resource: kyb.ai/gpu-2x-seat, groupSize: 2, seatsPerGroup: 1}"
    one = "{name: a, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 2}"
    plugin(profiles=f"profiles: [{one}, {two}]\n{listed}")
    until(lambda: side.counts() == {ONE: (4, 4), TWO: (1, 0)})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(None, "No such file or directory", id="absent"),
        pytest.param(b"profiles: \xff", "it is not UTF-8 text at byte 10", id="binary"),
    ],
)
def test_a_profile_file_that_cannot_be_read_is_told_in_a_sentence(plugin, work, content, why):
    file = work / "mine.yaml"
    if content is not None:
        file.write_bytes(content)
    process = plugin("--profiles", file)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.splitlines()[-1] == f"the profile file {file} cannot be read: {why}"


def test_listed_gpus_need_no_device(kubelet, plugin, until):
    side = kubelet()
    profile = "{name: a, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 3}"
    card = "{index: 0, uuid: GPU-x, product: L4, memory: 24Gi}"
    plugin("--inventory", "listed", profiles=f"profiles: [{profile}]\ngpus: [{card}]")
    until(lambda: side.counts() == {ONE: (3, 3)})
