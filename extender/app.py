"""
The WSGI application: the scheduler's verbs, and routes for people, kubelet and Prometheus.

Called by: `serving.py` (gunicorn), and by tests through Flask's client.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask, Response, request

from extender.metrics import CONTENT_TYPE, ExtenderMetrics
from extender.service import Service
from extender.verbs import Verbs
from kybernate.runtime.health import Health, Report

_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Seen:
    """The view as JSON, pods and nodes of the whole cluster. `by_everybody` who reaches us: right
    where all had to show a certificate. Else only from this pod, as `kubectl port-forward` is."""

    dump: Callable[[], bytes]
    by_everybody: bool = False


def create(service: Service, metrics: ExtenderMetrics, health: Health, seen: Seen) -> Flask:
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
    app.add_url_rule("/debug/view", "view", lambda: _view(seen))
    return app


def _view(seen: Seen) -> Response:
    if seen.by_everybody or _is_loopback(request.remote_addr):
        return _text(seen.dump(), _JSON)
    text = "only from this pod: kubectl port-forward, or --require-client-certificate\n"
    return Response(text, 403, content_type="text/plain; charset=utf-8")


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


def _text(body: bytes, content_type: str) -> Response:
    return Response(body, content_type=content_type)


def _report(report: Report) -> Response:
    return Response(report.text, report.status, content_type="text/plain; charset=utf-8")
