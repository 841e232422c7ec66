"""
The WSGI application: the scheduler's verbs, and routes for people, kubelet and Prometheus.

Called by: `serving.py` (gunicorn), and by tests through Flask's client.
"""

from collections.abc import Callable

from flask import Flask, Response

from extender.metrics import CONTENT_TYPE, ExtenderMetrics
from extender.service import Service
from extender.verbs import Verbs
from kybernate.runtime.health import Health, Report

_JSON = "application/json"


def create(
    service: Service, metrics: ExtenderMetrics, health: Health, dump: Callable[[], bytes]
) -> Flask:
    """The WSGI application."""
    app = Flask("extender", static_folder=None)
    verbs = {
        "filter": service.filter,
        "prioritize": service.prioritize,
        "preempt": service.preempt,
    }
    app.wsgi_app = Verbs(verbs, metrics, app.wsgi_app)  # type: ignore[method-assign, assignment]  # Flask's way
    app.add_url_rule("/healthz", "healthz", lambda: _report(health.healthz()))
    app.add_url_rule("/readyz", "readyz", lambda: _report(health.readyz()))
    app.add_url_rule("/metrics", "metrics", lambda: _text(metrics.text(), CONTENT_TYPE))
    app.add_url_rule("/debug/view", "view", lambda: _text(dump(), _JSON))
    return app


def _text(body: bytes, content_type: str) -> Response:
    return Response(body, content_type=content_type)


def _report(report: Report) -> Response:
    return Response(report.text, report.status, content_type="text/plain; charset=utf-8")
