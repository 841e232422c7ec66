"""`vllm-sleep`: what only a server that parks itself can do wrong, and what is said of it."""

import subprocess
import sys

import pytest
import urllib3

from kybernate.testing.agentnode import wait_for
from nodeagent.mechanisms import CardFull, NotPossible, NotYet
from nodeagent.mechanisms.listening import addresses

VLLM = ("testbed.vllm", "--enable-sleep-mode")
# Listens, and then does as its argument says.
_ODD = """
import http.server, sys, time, os
word = sys.argv[1]
class Odd(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if word == "silent":
            time.sleep(600)
        answers = {
            "/is_sleeping": b'{"is_sleeping": false}',
            "/version": b'{"version": "1"}',
            "/v1/models": b'[]' if word == "odd" else b'{"data": [{"id": "m"}]}',
            "/metrics": b'vllm:num_requests_running{a="b"} many' if word == "words" else
                        b'' if word == "quiet" else b'vllm:num_requests_running 0.0',
        }
        body = b'<html>' if word == "html" else answers[self.path]
        self.send_response(200); self.send_header("Content-Length", str(len(body)))
        self.end_headers(); self.wfile.write(body)
    def do_POST(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd).serve_forever()
"""


@pytest.fixture
def vllm(node):
    """Makes servers that end with the test."""
    made = []

    def start(*flags, ask=True, **how):
        made.append(node.start(*(flags or VLLM), **how))
        wait_for(lambda: made[-1].url, "it serves")
        if ask:
            made[-1].ask()
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def odd(node):
    """Makes programs that answer oddly; their bodies."""
    made = []

    def start(word):
        made.append(subprocess.Popen([sys.executable, "-c", _ODD, word]))
        wait_for(lambda: addresses(made[-1].pid), "it listens")
        return node.body_of(made[-1])

    yield start
    for one in made:
        one.kill()
        one.wait()


def test_a_server_without_the_development_endpoints_is_refused_and_told_how(node, vllm):
    program = vllm(*VLLM, dev=False)
    with pytest.raises(NotPossible, match="VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode"):
        node.mechanism.lock(program.body, 1.0)
    assert program.ask()[1]


def test_a_server_started_without_sleep_mode_says_so_and_serves_on(node, vllm):
    program = vllm(VLLM[0])
    node.mechanism.lock(program.body, 60)
    node.copy_out(program.body)
    with pytest.raises(NotPossible, match="does not sleep: Sleep mode is not enabled"):
        node.release(program.body)
    node.mechanism.unlock(program.body, 60)
    assert program.ask()[1]


ENDLESS = (*VLLM, "--token-seconds=600")  # requests end when a test ends them


def test_it_is_not_put_to_sleep_under_a_request_that_runs(node, vllm, later):
    program = vllm(*ENDLESS, vram="1Gi", ask=False)
    long = later(lambda: program.post("/v1/completions", model="m", prompt="", max_tokens=1))
    wait_for(lambda: _running(program), "the request runs")
    with pytest.raises(NotYet, match=r"1 requests run in the server after 0\.2 s"):
        node.mechanism.lock(program.body, 0.2)
    locked = later(lambda: node.mechanism.lock(program.body, 60))
    assert not locked.ended
    assert not long.ended
    _end(program, long)
    locked.answer()


def test_a_request_that_begins_between_the_lock_and_the_sleep_is_not_aborted(node, vllm, later):
    program = vllm(*ENDLESS, vram="1Gi", ask=False)
    node.mechanism.lock(program.body, 60)
    node.copy_out(program.body)
    long = later(lambda: program.post("/v1/completions", model="m", prompt="", max_tokens=1))
    wait_for(lambda: _running(program), "the request runs")
    with pytest.raises(NotYet, match="1 requests began meanwhile"):
        node.release(program.body)
    node.mechanism.unlock(program.body, 60)
    assert not long.ended
    _end(program, long)


def test_a_server_that_finds_no_room_is_parked_as_before_until_there_is(node, vllm):
    program = vllm()
    counter, _ = program.ask()
    slot, kept = node.park(program.body)
    other = vllm(vram="60Gi")
    node.freezer.thaw(program.body.pid, "")
    with pytest.raises(CardFull, match="found no room: CUDA out of memory"):
        node.mechanism.copy_in(program.body, kept[0], slot, lambda _: None)
    assert not any(part.backed for part in node.mechanism.parts(program.body))
    other.process.kill()
    other.process.wait()
    wait_for(lambda: node.used == 0, "the card is empty")
    node.resume(program.body, slot, kept)
    assert program.ask() == (counter + 1, True)


def test_a_server_that_sleeps_already_is_parked_by_finding_it_so(node, vllm):
    program = vllm()
    program.post("/sleep?level=1")
    node.mechanism.lock(program.body, 60)
    assert not any(part.backed for part in node.mechanism.parts(program.body))
    with pytest.raises(NotYet, match="the server sleeps"):
        node.mechanism.unlock(program.body, 60)
    program.post("/wake_up")
    assert program.ask()[1]


def test_a_server_that_comes_back_with_other_models_is_not_taken_for_the_same(node, vllm):
    program, other = vllm(), vllm(*VLLM, "--served-model-name=m", "--version=0.15.0", vram="1Gi")
    slot, kept = node.park(program.body)
    body = other.body
    changed = type(body)(**{**_fields(body), "uid": program.body.uid})
    node.mechanism.forget(program.body)
    assert node.mechanism.copy_in(changed, kept[0], slot, lambda _: None) != kept[0].digest
    node.mechanism.forget(changed)
    node.resume(program.body, slot, kept)


def test_it_is_never_sealed(node, vllm):
    program = vllm(vram="1Gi")
    with pytest.raises(NotPossible, match="cannot be sealed"):
        node.mechanism.let_go(program.body, 1.0)
    with pytest.raises(NotPossible, match="cannot be sealed"):
        node.mechanism.adopt(program.body, "")


def test_one_that_listens_nowhere_yet_is_asked_again(node):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with pytest.raises(NotYet, match="no process of the workload listens yet"):
            node.mechanism.lock(node.body_of(process), 1.0)
    finally:
        process.communicate(b"\n")


def test_a_server_that_never_answers_is_given_up_in_time(node, odd, monkeypatch):
    monkeypatch.setattr("nodeagent.mechanisms.vllmserver._ASK_S", 0.3)
    with pytest.raises(NotYet, match=r"does not answer /is_sleeping in 0\.3 s"):
        node.mechanism.lock(odd("silent"), 1.0)


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("html", "answers /is_sleeping with 200: <html>"),
        ("quiet", "does not tell vllm:num_requests_running"),
        ("words", "/metrics cannot be read"),
    ],
)
def test_a_server_that_answers_otherwise_is_refused_with_what_it_said(node, odd, word, why):
    with pytest.raises(NotPossible, match=why):
        node.mechanism.lock(odd(word), 1.0)


def test_a_server_with_an_odd_list_of_models_is_refused(node, odd):
    with pytest.raises(NotPossible, match="/v1/models"):
        node.mechanism.parts(odd("odd"))


def test_a_server_that_only_claims_to_sleep_keeps_its_workload_awake(node, odd):
    body = odd("liar")
    node.mechanism.lock(body, 1.0)
    with pytest.raises(NotYet, match="said it would sleep, and is awake"):
        node.release(body)


def _running(program):

    text = urllib3.request("GET", program.url + "/metrics").data.decode()
    return 'num_requests_running{engine="0",model_name="m"} 1.0' in text


def _end(program, long):
    """End its request, as vLLM's own sleep does, and have it awake again."""
    program.post("/sleep?level=1&mode=abort")
    program.post("/wake_up")
    assert long.answer().json()["choices"][0]["finish_reason"] == "abort"


def _fields(body):
    return {name: getattr(body, name) for name in body.__slots__}
