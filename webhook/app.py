"""The HTTP routes: /mutate, /validate, /healthz, /readyz, /metrics.

Rule: the API server gets an answer it can read, or a 400 for a question we cannot; never a 500.
A fault of our own is allowed through by /mutate (it fails open) and refused, seat pods only, by
/validate (it fails closed), both in a proper AdmissionReview, counted and logged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from kybernate.api.errors import Malformed
from kybernate.runtime import metrics
from kybernate.runtime.health import Health, Report
from kybernate.runtime.logs import get_logger
from kybernate.runtime.metrics import Metrics
from webhook import seats, wire
from webhook.admission import Admission
from webhook.wire import ALLOWED, Answer, Denial, Review

# The API server reads requests of 3 MiB at most; a review holds the object, and at UPDATE the old
# one too, within a little of its own.
LARGEST_BODY = 7 * 1024 * 1024
_TEXT = "text/plain; charset=utf-8"
_FAILED = Denial(
    message="the webhook failed while it judged this pod, so no seat is given; its log says why",
    code=500,
    reason="InternalError",
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes are made of."""

    admission: Admission
    health: Health
    metrics: Metrics


def make_app(parts: Parts) -> Flask:
    """The WSGI application."""
    app = Flask("webhook")
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    meter = _Meter(parts.metrics)

    @app.post("/mutate")
    def mutate() -> Response:
        return _answer(meter, "mutate", parts.admission.mutate, lambda _: ALLOWED)

    @app.post("/validate")
    def validate() -> Response:
        return _answer(meter, "validate", parts.admission.validate, _refused)

    @app.get("/healthz")
    def healthz() -> Response:
        return _reported(parts.health.healthz())

    @app.get("/readyz")
    def readyz() -> Response:
        return _reported(parts.health.readyz())

    @app.get("/metrics")
    def measured() -> Response:
        return Response(parts.metrics.text(), content_type=metrics.CONTENT_TYPE)

    app.register_error_handler(HTTPException, _http_error)
    return app


class _Meter:
    """Counts answers and times them."""

    def __init__(self, measured: Metrics) -> None:
        labels = ("verb", "outcome")  # outcome: untouched, patched, denied, failed, malformed
        self._answers = measured.counter("admission_answers", "Answers to the API server", labels)
        self._seconds = measured.histogram(
            "admission_seconds", "Seconds for one answer, policy included", ("verb",)
        )

    def count(self, verb: str, outcome: str, seconds: float) -> None:
        """One answer."""
        self._answers.labels(verb, outcome).inc()
        self._seconds.labels(verb).observe(seconds)


def _answer(
    meter: _Meter,
    verb: str,
    judge: Callable[[Review], Answer],
    otherwise: Callable[[Review], Answer],
) -> Response:
    """`judge`'s answer, or `otherwise` where it fails; 400 for what is no review."""
    began = perf_counter()
    try:
        review = wire.read_review(request.get_data(cache=False))
    except Malformed as problem:
        meter.count(verb, "malformed", perf_counter() - began)
        return Response(f"{problem}\n", 400, content_type=_TEXT)
    try:
        answer = judge(review)
        outcome = "denied" if answer.denial else "patched" if answer.additions else "untouched"
    except Exception:  # whatever it was, the API server is owed an answer it can read
        get_logger().exception("admission failed", verb=verb, namespace=review.namespace)
        answer, outcome = otherwise(review), "failed"
    meter.count(verb, outcome, perf_counter() - began)
    body = orjson.dumps(wire.write_answer(review.uid, answer))
    return Response(body, content_type="application/json")


def _refused(review: Review) -> Answer:
    """Closed for seat pods only: no fault of ours may stop any other."""
    return Answer(denial=_FAILED) if seats.claims(review.pod) else ALLOWED


def _reported(report: Report) -> Response:
    return Response(report.text, report.status, content_type=_TEXT)


def _http_error(error: HTTPException) -> Response:
    """In one line of text, where Flask would answer a page."""
    status = error.code or 400
    text = error.description or error.name
    if isinstance(error, RequestEntityTooLarge):
        text = f"a review is {LARGEST_BODY} bytes at most"
    return Response(f"{text}\n", status, content_type=_TEXT)
