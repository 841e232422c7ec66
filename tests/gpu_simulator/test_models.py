"""Models and trainers are real processes that notice nothing of being parked but the time."""

import json
import os
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from kybernate.api.profiles import made_up_uuid

GIB = 2**30
BIG, SMALL = "GPU-big", "GPU-small"


@pytest.fixture
def start(socket):
    """Starts `python -m testbed.models`; what still runs at the end is killed."""
    started = []

    def begin(*argv, cards=BIG, **environment):
        given = {"KYB_SIMULATED_GPU": str(socket), "CUDA_VISIBLE_DEVICES": cards}
        process = subprocess.Popen(
            [sys.executable, "-m", "testbed.models", *argv],
            env={**os.environ, **given, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def serve(start):
    """A model server: its process and its address."""

    def begin(*argv, **more):
        process = start("serve", "--port", "0", *argv, **more)
        assert process.stdout.readline().startswith("loaded")
        return process, "http://" + process.stdout.readline().split()[-1]

    return begin


def post(address):
    request = urllib.request.Request(address + "/predict", data=b"{}")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def get(address):
    with urllib.request.urlopen(address + "/state") as answer:
        return json.load(answer)


def park(driver, context):
    driver.lock(context)
    contents = {
        s.name: b"".join(driver.copy_out(context, s.name)) for s in driver.segments(context)
    }
    for segment in contents:
        driver.release(context, segment)
    return contents


def resume(driver, context, contents):
    for segment, content in contents.items():
        driver.copy_in(context, segment, [content])
    driver.unlock(context)


def test_a_model_counts_in_the_memory_of_the_card(serve, driver):
    process, address = serve("--vram", "40Gi")
    assert driver.showing().used[BIG] == 40 * GIB
    assert [post(address)["counter"] for _ in range(3)] == [1, 2, 3]
    assert get(address)["pid"] == process.pid


def test_a_request_to_a_parked_model_waits_and_is_answered_whole(serve, driver, until):
    process, address = serve("--vram", "40Gi", cards=f"{BIG},{SMALL}")
    post(address)
    context = driver.showing().context_of(process.pid)
    contents = park(driver, context)
    assert set(driver.showing().used.values()) == {0}
    with ThreadPoolExecutor(1) as aside:
        asked = aside.submit(post, address)
        until(lambda: get(address)["waiting"] == 1)
        resume(driver, context, contents)
        answer = asked.result()
    assert (answer["counter"], answer["intact"]) == (2, True)


def test_damaged_contents_are_noticed(serve, driver):
    process, address = serve("--vram", "10Gi")
    context = driver.showing().context_of(process.pid)
    ((segment, content),) = park(driver, context).items()
    resume(driver, context, {segment: content[:100] + b"!" + content[101:]})
    assert post(address)["intact"] is False


def test_a_model_stops_when_asked_also_while_parked(serve, driver, until):
    process, _ = serve("--vram", "40Gi")
    park(driver, driver.showing().context_of(process.pid))
    process.terminate()
    assert process.wait() == 0
    until(lambda: not driver.showing().processes)


def test_a_model_without_room_says_so_and_ends(start, driver):
    driver.inject(BIG, foreign_bytes=50 * GIB)
    process = start("serve", "--vram", "40Gi")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "OutOfMemory" in errors


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        pytest.param({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES", id="no-card"),
        pytest.param({"KYB_SIMULATED_GPU": "/nowhere"}, "DeviceAway", id="no-device"),
    ],
)
def test_a_model_without_a_gpu_says_so_and_ends(start, environment, words):
    process = start("serve", "--vram", "40Gi", **environment)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert words in errors


def test_a_model_ends_when_its_device_does(tmp_path, start):
    path = tmp_path / "own.sock"
    device = subprocess.Popen(
        [sys.executable, "-m", "testbed.gpu", "--socket", path, "--card", "P=80Gi", "--name", "n"],
        stdout=subprocess.PIPE,
    )
    try:
        device.stdout.readline()
        model = start(
            "serve", "--vram", "1Gi", "--port", "0",
            cards=made_up_uuid("n", 0), KYB_SIMULATED_GPU=str(path),
        )  # fmt: skip
        assert model.stdout.readline().startswith("loaded")
    finally:
        device.kill()
        device.communicate()
    assert model.wait() == 1


def test_a_trainer_counts_its_steps_through_a_pause(start, driver):
    process = start("train", "--vram", "40Gi", "--steps", "5", "--step-seconds", "0.01")
    while process.stdout.readline() != "step 2/5\n":
        pass
    context = driver.showing().context_of(process.pid)
    resume(driver, context, park(driver, context))
    output, _ = process.communicate()
    assert output.endswith("step 5/5\ntrained 5 steps, memory intact\n")
    assert process.returncode == 0


def test_a_device_whose_flags_cannot_be_read_says_why():
    wrong = ["--card", "H100"]
    process = subprocess.run(
        [sys.executable, "-m", "testbed.gpu", "--socket", "/nowhere/s", *wrong],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "PRODUCT=SIZE" in process.stderr
