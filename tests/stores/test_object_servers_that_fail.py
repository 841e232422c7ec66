"""A bucket whose server is away, refuses, is slow, or answers nonsense; who retries and who not."""

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kybernate.artifacts.faults import Unusable
from kybernate.clients.backoff import Pace
from kybernate.runtime.clock import SystemClock
from kybernate.stores.bucket import Access, Bucket
from kybernate.stores.errors import Away, Denied
from kybernate.stores.ram import Ram
from kybernate.stores.retrying import Retrying
from kybernate.stores.verified import Verified
from kybernate.testing.artifacts import made
from testbed.objectserver import ObjectServer

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def _server(answer: Answer) -> Iterator[Bucket]:
    class Speaking(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Speaking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Bucket(_access(f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _access(url: str) -> Access:
    return Access(bucket="kyb", endpoint=url, key_id="a", secret="b", timeout="2s")


def _status(code: int) -> Answer:
    def answer(one: http.server.BaseHTTPRequestHandler) -> None:
        one.rfile.read(int(one.headers.get("Content-Length") or 0))
        one.send_response(code)
        one.send_header("Content-Length", "0")
        one.end_headers()

    return answer


def _cut_short(one: http.server.BaseHTTPRequestHandler) -> None:
    one.send_response(200)
    one.send_header("Content-Length", "1000")
    one.send_header("ETag", '"x"')
    one.send_header("Last-Modified", "Mon, 30 Nov 2026 03:00:00 GMT")
    one.end_headers()
    one.wfile.write(b"x" * 500)
    one.close_connection = True


def test_nobody_there() -> None:
    bucket = Bucket(_access("http://127.0.0.1:9"))
    for ask in (bucket.get, bucket.stat, lambda key: bucket.put(key, b"x")):
        with pytest.raises(Away):
            ask("a")
    with pytest.raises(Away):
        list(bucket.list())


@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_a_server_that_is_ill(code: int) -> None:
    with _server(_status(code)) as bucket:
        with pytest.raises(Away):
            bucket.get("a")
        with pytest.raises(Away):
            bucket.put("a", b"x")


@pytest.mark.parametrize("code", [401, 403])
def test_a_server_that_does_not_let_us(code: int) -> None:
    with _server(_status(code)) as bucket:
        for ask in (bucket.get, bucket.stat, lambda key: bucket.put(key, b"x")):
            with pytest.raises(Denied):
                ask("a")
        with pytest.raises(Denied):  # no use in trying that again
            list(bucket.list())


def test_a_body_that_is_cut_short_is_never_taken_for_the_whole() -> None:
    with _server(_cut_short) as bucket, pytest.raises(Away):
        bucket.get("a")


def test_a_server_that_says_nothing() -> None:
    over = threading.Event()
    with _server(lambda _: over.wait(30) and None) as bucket:
        try:
            with pytest.raises(Away):
                bucket.get("a")
        finally:
            over.set()


def test_wrong_bytes_are_never_given_out() -> None:
    """A pack that the server has mixed up, under the name of another."""
    objects = made().objects
    key = next(key for key in objects if "/packs/" in key)
    ram = Ram(2**20, SystemClock().now)
    ram.put(key, objects[key][:-20] + b"\0" + objects[key][-19:])
    with pytest.raises(Unusable):
        Verified(ram).get(key)
    with pytest.raises(Unusable):
        Verified(ram).put(key, b"something else")


def test_the_real_server_goes_and_comes_back(
    object_server: ObjectServer, bucket: Callable[..., Bucket]
) -> None:
    plain = bucket()
    plain.put("a", b"before")
    object_server.kill()
    try:
        with pytest.raises(Away):
            plain.get("a")
    finally:
        object_server.start_again()
    patient = Retrying(
        plain, SystemClock(), threading.Event(), tries=20, pace=Pace(first=0.1, longest=2.0)
    )
    assert bytes(patient.get("a")) == b"before"


def test_a_foreign_user_is_denied(bucket: Callable[..., Bucket]) -> None:
    foreign = bucket(secret="wrong")
    with pytest.raises(Denied):
        foreign.put("a", b"x")
    with pytest.raises(Denied):
        list(foreign.list())


def test_a_bucket_that_is_not_there_is_told(bucket: Callable[..., Bucket]) -> None:
    absent = bucket(bucket="absent")
    with pytest.raises(Denied, match="no such bucket"):
        list(absent.list())


class TestRetrying:
    def test_tries_as_often_as_it_was_told(self) -> None:
        asked: list[str] = []

        class Never(Ram):
            def get(self, key: str, *_: object, **__: object) -> memoryview:
                asked.append(key)
                raise Away("never")

        store = Retrying(
            Never(1, SystemClock().now), SystemClock(), threading.Event(), tries=3, pace=Pace(0, 0)
        )
        with pytest.raises(Away):
            store.get("a")
        assert len(asked) == 3

    def test_its_pauses_end_when_it_is_told_so(self) -> None:
        class Never(Ram):
            def stat(self, key: str) -> object:  # type: ignore[override]
                raise Away("never")

        ended = threading.Event()
        ended.set()
        store = Retrying(Never(1, SystemClock().now), SystemClock(), ended, pace=Pace(600, 600))
        with pytest.raises(Away):
            store.stat("a")
