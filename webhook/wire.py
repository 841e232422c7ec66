"""AdmissionReview v1 to values and back, JSON Patch included. Pure; called by `app`.

The API server checks our answer strictly (kubernetes.md section 2): the same uid, `patch` and
`patchType` together or not at all, and a patch that does not apply is an error of the *pod's*
request whatever the failure policy says. So patches are built from `Addition`s only, and pointers
are escaped here and nowhere else.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from kybernate.api.errors import Fault, Malformed

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"

Json = Any  # a decoded JSON value


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One question of the API server. `pod` is empty where the object is not a pod."""

    uid: str
    operation: str  # CREATE, UPDATE, DELETE, CONNECT
    namespace: str
    pod: Mapping[str, Any]
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Addition:
    """One `add` of a JSON Patch; a member that is there is replaced. `path` is unescaped."""

    path: tuple[str, ...]
    value: Json

    @property
    def pointer(self) -> str:
        """The path as RFC 6901 writes it: `~` is `~0`, `/` is `~1`."""
        return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """No, in a form `kubectl` prints. `code` is an HTTP status, `reason` its Kubernetes word."""

    message: str
    code: int = 403
    reason: str = "Forbidden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Allowed unless there is a denial."""

    denial: Denial | None = None
    additions: tuple[Addition, ...] = ()
    warnings: tuple[str, ...] = ()


ALLOWED = Answer()


def read_review(body: bytes) -> Review:
    """The review in a request's body. Raises Malformed with every fault found."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        start = body[:80].decode(errors="replace")
        raise Malformed([Fault("body", start, f"JSON ({error})")]) from None
    faults: list[Fault] = []
    _expect(document, "apiVersion", API_VERSION, faults)
    _expect(document, "kind", KIND, faults)
    request = _member(document, "request")
    if not isinstance(request, dict):
        faults.append(Fault("request", request, "an object"))
        raise Malformed(faults)
    faults += [
        Fault(f"request.{name}", request.get(name), "a text")
        for name in ("uid", "operation")
        if not isinstance(request.get(name), str) or not request[name]
    ]
    if not isinstance(request.get("object"), dict | None):
        faults.append(Fault("request.object", request["object"], "an object or null"))
    if faults:
        raise Malformed(faults)
    return _review(request)


def _review(request: Mapping[str, Any]) -> Review:
    pod = request.get("object") or {}
    kind = _member(request.get("kind"), "kind") or pod.get("kind")
    namespace = request.get("namespace")  # the object's own may be empty at CREATE
    return Review(
        uid=request["uid"],
        operation=request["operation"],
        namespace=namespace if isinstance(namespace, str) else "",
        pod=pod if kind == "Pod" and not request.get("subResource") else {},
        dry_run=request.get("dryRun") is True,
    )


def write_answer(uid: str, answer: Answer) -> dict[str, Any]:
    """The AdmissionReview to send back for the request of this uid."""
    response: dict[str, Any] = {"uid": uid, "allowed": answer.denial is None}
    if answer.denial is not None:
        response["status"] = {
            "code": answer.denial.code,
            "reason": answer.denial.reason,
            "message": answer.denial.message,
        }
    elif answer.additions:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(orjson.dumps(patch_of(answer.additions))).decode()
    if answer.warnings:
        response["warnings"] = list(answer.warnings)
    return {"apiVersion": API_VERSION, "kind": KIND, "response": response}


def patch_of(additions: Sequence[Addition]) -> list[dict[str, Json]]:
    """The additions as a JSON Patch (RFC 6902)."""
    return [{"op": "add", "path": item.pointer, "value": item.value} for item in additions]


def _member(value: object, name: str) -> Json:
    return value.get(name) if isinstance(value, dict) else None


def _expect(document: object, name: str, expected: str, faults: list[Fault]) -> None:
    found = _member(document, name)
    if found != expected:
        faults.append(Fault(name, found, expected))
