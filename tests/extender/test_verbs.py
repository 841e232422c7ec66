"""What a verb accepts, and what is said of anything else."""

import io
from typing import Any

import pytest

from extender import verbs
from extender.metrics import ExtenderMetrics
from extender.verbs import Verbs


class Caller:
    """Calls the application as a server does."""

    def __init__(self, answer: Any) -> None:
        self.others: list[str] = []
        self._app = Verbs({"filter": answer}, ExtenderMetrics(), self._other)
        self.status, self.headers = "", {}

    def __call__(self, path: str, body: bytes = b"", method: str = "POST", **more: str) -> bytes:
        environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "wsgi.input": io.BytesIO(body)}
        return b"".join(self._app(environ | more, self._start))

    def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = status, dict(headers)

    def _other(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        self.others.append(environ["PATH_INFO"])
        return []


def echo(body: bytes) -> bytes:
    return b"[" + body + b"]"


def test_a_verb_is_answered_with_json_of_a_known_length() -> None:
    call = Caller(echo)
    assert call("/filter", b"1") == b"[1]"
    assert (call.status, call.headers["Content-Length"]) == ("200 OK", "3")
    assert call.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/readyz", "/filter/", "/", "/FILTER", ""])
def test_every_other_path_is_others_business(path: str) -> None:
    call = Caller(echo)
    call(path)
    assert call.others == [path]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_a_verb_is_a_post(method: str) -> None:
    call = Caller(echo)
    call("/filter", method=method)
    assert call.status.startswith("405")
    assert call.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "announced",
    [
        pytest.param({"CONTENT_LENGTH": "33"}, id="announced"),
        pytest.param({}, id="in-chunks"),
    ],
)
def test_a_body_that_is_too_large_is_refused(
    announced: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "LARGEST_BODY", 32)
    call = Caller(echo)
    call("/filter", b"x" * 33, **announced)
    assert call.status.startswith("413")
    assert call("/filter", b"x" * 32) == echo(b"x" * 32)


def test_a_fault_of_ours_is_an_answer_too() -> None:
    def broken(_body: bytes) -> bytes:
        raise RuntimeError("a fault")

    call = Caller(broken)
    assert b"fault" not in call("/filter")
    assert call.status.startswith("500")
