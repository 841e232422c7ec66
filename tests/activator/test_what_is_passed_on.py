"""Answers as they come: streams, other protocols, heads, connections that are used again."""

import base64
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from activator.catalog import Ambiguous, Catalog, PodSeen, Unknown
from activator.models import Model, ModelId, Place
from activator.routing import Meant, Routing
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State

Start = Callable[..., Any]


def open_to(activator: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", activator.port), timeout=60)


def read_until(client: socket.socket, mark: bytes) -> bytes:
    said = b""
    while mark not in said:
        more = client.recv(65536)
        assert more, said
        said += more
    return said


def test_a_stream_is_passed_on_as_it_comes(house: Any, start: Start) -> None:
    key = house.model("llama-a", State.ACTIVE)
    with open_to(start()) as client:
        client.sendall(b"GET /models/llama-a/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        first = read_until(client, b"data: 0\n\n")
        assert b"data: 1" not in first  # the model has not said it yet
        assert b"text/event-stream" in first
        house.server(key).gate.set()
        assert b"data: 2\n\n" in read_until(client, b"0\r\n\r\n")


def test_a_client_without_chunks_gets_the_stream_until_its_end(house: Any, start: Start) -> None:
    key = house.model("llama-a", State.ACTIVE)
    house.server(key).gate.set()
    with open_to(start()) as client:
        client.sendall(b"GET /models/llama-a/stream HTTP/1.0\r\n\r\n")
        said = b""
        while more := client.recv(65536):
            said += more
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_heads_pass_without_what_is_about_one_connection(house: Any, start: Start) -> None:
    key = house.model("llama-a", State.ACTIVE)
    activator = start()
    fields = {
        "Connection": "close, X-Private", "X-Private": "1", "X-Kept": "2", "Authorization": "key",
        "Host": "models.example",
    }  # fmt: skip
    assert activator.ask("llama-a", headers=fields).status == 200
    seen = house.server(key).seen[-1]
    assert "X-Private" not in seen
    assert (seen["X-Kept"], seen["Authorization"], seen["Host"]) == ("2", "key", "models.example")
    assert seen["X-Forwarded-For"] == "127.0.0.1"
    head = activator.ask("llama-a", method="HEAD")
    assert (head.status, head.headers["Content-Length"]) == (200, "1234")


def test_another_protocol_is_spoken_through_us_both_ways(house: Any, start: Start) -> None:
    """A WebSocket's upgrade, then bytes in both directions, the client's first ones early."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            asked = read_until(peer, b"\r\n\r\n")
            assert b"upgrade: websocket" in asked.lower()
            _, _, early = asked.partition(b"\r\n\r\n")
            told = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            peer.sendall(told + b"Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello")
            heard = early
            while b"end" not in heard:
                heard += peer.recv(65536)
            peer.sendall(b"heard:" + heard)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    house.model("llama-a", State.ACTIVE)
    pod = house.kube.get(_pods(), "llama-a-abc-1", "default")
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": port}]
    house.kube.seed(pod)
    activator = start()
    key = base64.b64encode(os.urandom(16)).decode()
    with open_to(activator) as client:
        client.sendall(
            b"GET /models/llama-a/v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Key: %b\r\n\r\nearly," % key.encode()
        )
        said = read_until(client, b"hello")
        assert said.startswith(b"HTTP/1.1 101 ")
        assert activator.of("llama-a")["in_flight"] == 1  # nobody parks it meanwhile
        client.sendall(b"more,end")
        assert read_until(client, b"end").endswith(b"heard:early,more,end")
        assert client.recv(1) == b""
    thread.join(60)
    listener.close()
    house.wait_for(lambda: activator.of("llama-a")["in_flight"] == 0, "it is over")


def _pods() -> Any:
    from kybernate.clients.resources import PODS

    return PODS


def test_who_upgrades_to_what_we_do_not_pass_on_is_answered_as_before(
    house: Any, start: Start
) -> None:
    house.model("llama-a", State.ACTIVE)
    with open_to(start()) as client:
        client.sendall(
            b"GET /models/llama-a/echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings"
            b"\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        assert read_until(client, b"}").startswith(b"HTTP/1.1 200 OK")


def test_models_are_meant_by_host_path_or_body_in_this_order(house: Any, start: Start) -> None:
    for name in ("llama-a", "llama-b"):
        house.model(name, State.ACTIVE)
    house.model("qwen", State.ACTIVE, model="Qwen/Qwen3-8B")
    activator = start(host_suffix="models.example")
    url = activator.url

    def answered(
        path: str, host: str = "x", body: bytes = b'{"model": "llama-b"}'
    ) -> tuple[str, str]:
        answer = urllib3.request("POST", url + path, body=body, headers={"Host": host})
        assert answer.status == 200, answer.data
        said = answer.json()
        return said["model"], said["path"]

    assert answered("/v1/chat", "llama-a.models.example:80") == ("llama-a", "/v1/chat")
    assert answered("/v1/chat", "llama-a.default.models.example") == ("llama-a", "/v1/chat")
    assert answered("/models/llama-a/v1/chat?x=1") == ("llama-a", "/v1/chat?x=1")
    assert answered("/v1/chat") == ("llama-b", "/v1/chat")
    assert answered("/models/Qwen%2FQwen3-8B/v1/chat") == ("qwen", "/v1/chat")
    assert answered("/v1/chat", body=b'{"model": "Qwen/Qwen3-8B"}') == ("qwen", "/v1/chat")


NAMES = st.sampled_from(["a", "b", "a-b", "b/a", "team/a"])
PODS = st.lists(st.tuples(st.sampled_from(["x", "y", "team", "b"]), NAMES), max_size=6)


@given(PODS, NAMES, st.sampled_from(["", "x/", "team/", "b/"]))
def test_no_request_means_a_model_that_was_not_named(
    pods: list[tuple[str, str]], name: str, prefix: str
) -> None:
    """Whatever models there are: what is found has the name, in the namespace if one was said."""
    catalog = Catalog()
    for number, (namespace, model) in enumerate(pods):
        key = WorkloadKey(namespace, f"pod-{number}")
        place = Place(key=key, uid=PodUid(str(number)))
        catalog.pod(key, PodSeen(model=ModelId(namespace, model), place=place))
    asked = prefix + name
    meant = Routing().meant(b"/v1/chat", b"x", b'{"model": "%b"}' % asked.encode())
    assert meant == Meant(asked, b"/v1/chat")
    found = catalog.find(asked)
    there = {ModelId(*pod) for pod in pods}
    exact = {one for one in there if one.name == asked}
    whole = {one for one in there if asked.startswith(f"{one.namespace}/") and str(one) == asked}
    if isinstance(found, Model):
        assert {found.id} == (whole or exact)
        assert all(place.key.namespace == found.id.namespace for place in found.places)
    elif isinstance(found, Ambiguous):
        assert len(exact) > 1
        assert not whole
    else:
        assert isinstance(found, Unknown)
        assert not exact
        assert not {one for one in there if str(one) == asked}


@pytest.mark.parametrize("path", ["/", "/ui/state", "/debug/view"])
def test_people_see_what_goes_on(house: Any, start: Start, path: str) -> None:
    house.model("llama-a", State.ACTIVE)
    activator = start()
    assert activator.ask("llama-a").status == 200
    seen = urllib3.request("GET", activator.view_url + path)
    assert seen.status == 200
    if path == "/ui/state":
        (model,) = seen.json()["models"]
        assert (model["name"], model["answered"], model["state"]) == ("llama-a", 1, "Active")


def test_the_stream_of_events_tells_of_a_request(house: Any, start: Start) -> None:
    house.model("llama-a", State.ACTIVE)
    activator = start()
    with socket.create_connection(("127.0.0.1", activator.view_port), timeout=60) as client:
        client.sendall(b"GET /ui/events HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(client, b"llama-a")
        assert activator.ask("llama-a").status == 200
        read_until(client, b'"answered":1')
