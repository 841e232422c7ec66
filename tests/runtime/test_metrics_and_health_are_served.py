"""/metrics, /healthz and /readyz over HTTP."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from kybernate.runtime.health import Health
from kybernate.runtime.metrics import Metrics
from kybernate.runtime.serving import Answer, HttpServer, telemetry
from kybernate.runtime.tls import TlsFiles
from testbed.pki import Authority


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(health: Health, metrics: Metrics) -> Iterator[HttpServer]:
    with telemetry("127.0.0.1:0", health, metrics) as running:
        yield running


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=10.0) as made:
        yield made


def ask(pool: urllib3.PoolManager, server: HttpServer, path: str) -> tuple[int, str]:
    host, port = server.address
    answer = pool.request("GET", f"http://{host}:{port}{path}")
    return answer.status, answer.data.decode()


def test_metrics_are_prometheus_text(
    pool: urllib3.PoolManager, server: HttpServer, metrics: Metrics
) -> None:
    metrics.counter("decisions", "Decisions made", ["reason"]).labels("Placed").inc()
    metrics.histogram("switch_seconds", "Length of switches").observe(1.2)
    metrics.observed("queue", "Length of the queue", lambda: 7)
    status, text = ask(pool, server, "/metrics")
    assert status == 200
    assert 'kyb_decisions_total{reason="Placed"} 1.0' in text
    assert 'kyb_switch_seconds_bucket{le="2.5"} 1.0' in text
    assert "kyb_queue 7.0" in text
    assert "process_cpu_seconds_total" in text


def test_two_processes_in_one_test_have_metrics_of_their_own() -> None:
    first, second = Metrics(), Metrics()
    first.counter("same", "Same name").inc()
    assert b"kyb_same_total 0.0" in second.text() or b"kyb_same" not in second.text()


def test_a_healthy_process_says_ok_and_what_it_looked_at(
    pool: urllib3.PoolManager, server: HttpServer, health: Health
) -> None:
    health.live("loop", lambda: None)
    health.ready("view", lambda: None)
    assert ask(pool, server, "/healthz") == (200, "[+] loop\nok\n")
    assert ask(pool, server, "/readyz") == (200, "[+] loop\n[+] view\nok\n")


def test_what_is_not_ready_is_told_and_is_not_unhealthy(
    pool: urllib3.PoolManager, server: HttpServer, health: Health
) -> None:
    health.ready("view", lambda: "not synced yet")
    assert ask(pool, server, "/healthz")[0] == 200
    assert ask(pool, server, "/readyz") == (503, "[-] view: not synced yet\nnot ok\n")


def test_a_check_that_fails_itself_is_a_failed_check(health: Health) -> None:
    health.live("loop", lambda: 1 / 0 and None)
    report = health.healthz()
    assert report.status == 503
    assert "ZeroDivisionError" in report.text


def test_another_page_is_not_there(pool: urllib3.PoolManager, server: HttpServer) -> None:
    assert ask(pool, server, "/")[0] == 404
    assert ask(pool, server, "/healthz?verbose")[0] == 200


def test_a_route_that_fails_answers_500(pool: urllib3.PoolManager) -> None:
    def fail() -> Answer:
        raise RuntimeError("a bug")

    with HttpServer("127.0.0.1:0", {"/": fail}) as server:
        assert ask(pool, server, "/")[0] == 500
        assert ask(pool, server, "/")[0] == 500


def test_a_client_that_says_nothing_holds_nobody_up(
    pool: urllib3.PoolManager, server: HttpServer
) -> None:
    with socket.create_connection(server.address):
        assert ask(pool, server, "/healthz")[0] == 200


def test_its_address_is_free_again_after_the_end(health: Health, metrics: Metrics) -> None:
    with telemetry("127.0.0.1:0", health, metrics) as server:
        host, port = server.address
    with telemetry(f"{host}:{port}", health, metrics) as again:
        assert again.address == (host, port)


def test_one_that_was_never_started_can_be_stopped(health: Health, metrics: Metrics) -> None:
    telemetry("127.0.0.1:0", health, metrics).stop()


def test_it_serves_tls_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("tls", common_name="kyb", addresses=["127.0.0.1"])
    routes = {"/": lambda: Answer(b"hello")}
    with (
        HttpServer("127.0.0.1:0", routes, TlsFiles(tmp_path)) as server,
        urllib3.PoolManager(ca_certs=str(tmp_path / "ca.crt"), retries=False) as pool,
    ):
        host, port = server.address
        assert pool.request("GET", f"https://{host}:{port}/").data == b"hello"
