"""
The routes. The verbs are the scheduler's; the others are for people, kubelet and Prometheus.

Called by: `serving.py` (gunicorn), and by tests through Flask's client.
"""

from collections.abc import Callable

from flask import Flask, Response, request

from extender.metrics import CONTENT_TYPE, ExtenderMetrics
from extender.service import Service
from kybernate.runtime.health import Health, Report

_JSON = "application/json"
# 5,000 names are 100 KB; 5,000 whole Nodes (nodeCacheCapable off) are 80 MB and beyond our means.
_LARGEST_BODY = 32 << 20


def create(
    service: Service, metrics: ExtenderMetrics, health: Health, dump: Callable[[], bytes]
) -> Flask:
    """The WSGI application."""
    app = Flask("extender", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _LARGEST_BODY
    verbs = {
        "filter": service.filter,
        "prioritize": service.prioritize,
        "preempt": service.preempt,
    }
    for verb, answer in verbs.items():
        route = _verb(answer, metrics, verb)
        app.add_url_rule(f"/{verb}", verb, route, methods=["POST"])
    app.add_url_rule("/healthz", "healthz", lambda: _report(health.healthz()))
    app.add_url_rule("/readyz", "readyz", lambda: _report(health.readyz()))
    app.add_url_rule("/metrics", "metrics", lambda: _text(metrics.text(), CONTENT_TYPE))
    app.add_url_rule("/debug/view", "view", lambda: _text(dump(), _JSON))
    return app


def _verb(
    answer: Callable[[bytes], bytes], metrics: ExtenderMetrics, verb: str
) -> Callable[[], Response]:
    timed = metrics.seconds.labels(verb)

    def route() -> Response:
        body = request.get_data(cache=False)
        with timed.time():
            return Response(answer(body), content_type=_JSON)

    return route


def _text(body: bytes, content_type: str) -> Response:
    return Response(body, content_type=content_type)


def _report(report: Report) -> Response:
    return Response(report.text, report.status, content_type="text/plain; charset=utf-8")
