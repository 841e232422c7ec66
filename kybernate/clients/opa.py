"""
Policy by OPA, over its REST API on loopback.

Called by: extender, webhook and node agent, through the port `clients/policy.py`.
Rule 1: whatever goes wrong is a Refusal and quick: `timeout_s` once, then at once while it is away.
Rule 2: the revision comes with the answer itself (OPA's provenance, read in the transaction that
decided), so a verdict and its revision cannot part while a bundle is being replaced.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
from opa_client import OpaClient

from kybernate.api import policy
from kybernate.api.errors import Malformed
from kybernate.api.opa_config import BUNDLE
from kybernate.clients.circuit import Circuit
from kybernate.clients.opa_answers import Answers
from kybernate.model.callers import Callers
from kybernate.model.engines import Engines
from kybernate.model.ids import NO_REVISION, Revision
from kybernate.model.policy import (
    AdmissionQuestion,
    AdmissionVerdict,
    PlacementQuestion,
    PlacementVerdict,
    PreemptionQuestion,
    PreemptionVerdict,
    RetentionQuestion,
    RetentionVerdict,
    SharingQuestion,
    SharingVerdict,
    TieringQuestion,
    TieringVerdict,
    TimesliceQuestion,
    TimesliceVerdict,
)
from kybernate.model.storelimits import StoreLimits
from kybernate.model.verdict import Reason, Refusal

TIMEOUT_S = 0.5  # a verdict takes about a millisecond; the scheduler waits for us meanwhile
PAUSE_S = 1.0  # between two tries while OPA is away
FRESH_S = 1.0  # how long a placement may be answered from memory; OPA polls every 1 to 2 s anyway
_REMEMBERED = 4096  # distinct placement questions
_CONNECTIONS = 32  # threads of a process that may ask at once
_ENTRY = "verdict"
_SHOWN = 200  # characters of OPA's own words

V = TypeVar("V")


class Outcome(StrEnum):
    """How a question ended, for metrics."""

    VERDICT = "verdict"
    REMEMBERED = "remembered"
    UNDEFINED = "undefined"
    UNREADABLE = "unreadable"
    FAILED = "failed"  # OPA answered with an error
    AWAY = "away"


Observe = Callable[[str, Outcome, float], None]
"""Called after each question with its package (`placement`), outcome and seconds."""


class _Failure(Exception):
    """Why there is no verdict."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class _Answer:
    result: object
    defined: bool
    revision: Revision


class OpaPolicy:
    """Implements `kybernate.clients.policy.Policy`. Thread safe."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        observe: Observe | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` is `http://127.0.0.1:8181`. Raises ValueError for one without host and port."""
        self._url = url
        self._client = _client(url, timeout_s)
        self._observe_outcome = observe
        self._monotonic = monotonic
        self._circuit = Circuit(PAUSE_S, monotonic)
        self._placements: Answers[PlacementVerdict] = Answers(FRESH_S, _REMEMBERED, monotonic)

    def admission(self, question: AdmissionQuestion) -> AdmissionVerdict | Refusal:
        """As the port says."""
        return self._verdict("admission", policy.write_admission(question), policy.read_admission)

    def placement(self, question: PlacementQuestion) -> PlacementVerdict | Refusal:
        """As the port says; the same question is answered from memory for `FRESH_S`."""
        document = policy.write_placement(question)
        key = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        remembered = self._placements.get(key)
        if remembered is not None:
            self._observe("placement", Outcome.REMEMBERED, 0.0)
            return remembered
        verdict = self._verdict("placement", document, policy.read_placement)
        if isinstance(verdict, PlacementVerdict):
            self._placements.keep(key, verdict, verdict.revision)
        return verdict

    def preemption(self, question: PreemptionQuestion) -> PreemptionVerdict | Refusal:
        """As the port says."""
        document = policy.write_preemption(question)
        return self._verdict("preemption", document, policy.read_preemption)

    def timeslice(self, question: TimesliceQuestion) -> TimesliceVerdict | Refusal:
        """As the port says."""
        read = partial(_read_timeslice, question)
        return self._verdict("timeslice", policy.write_timeslice(question), read)

    def tiering(self, question: TieringQuestion) -> TieringVerdict | Refusal:
        """As the port says."""
        return self._verdict("tiering", policy.write_tiering(question), policy.read_tiering)

    def retention(self, question: RetentionQuestion) -> RetentionVerdict | Refusal:
        """As the port says."""
        return self._verdict("retention", policy.write_retention(question), policy.read_retention)

    def sharing(self, question: SharingQuestion) -> SharingVerdict | Refusal:
        """As the port says."""
        return self._verdict("sharing", policy.write_sharing(question), policy.read_sharing)

    def ignored_callers(self) -> Callers | Refusal:
        """As the port says. Data, which Rego need not compute."""
        return self._verdict("settings", {}, policy.read_ignored_callers, entry="ignored")

    def engines(self) -> Engines | Refusal:
        """As the port says. Data, likewise."""
        return self._verdict("settings", {}, policy.read_engines, entry="metrics")

    def store_limits(self) -> StoreLimits | Refusal:
        """As the port says. Data, likewise."""
        return self._verdict("settings", {}, policy.read_store_limits, entry="quotas")

    def revision(self) -> Revision | None:
        """As the port says. Asks OPA each time."""
        try:
            return self._ask("revision", {}).revision or None
        except _Failure:
            return None

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close_connection()

    def _observe(self, package: str, outcome: Outcome, seconds: float) -> None:
        if self._observe_outcome:
            self._observe_outcome(package, outcome, seconds)

    def _verdict(
        self,
        package: str,
        document: Mapping[str, Any],
        read: Callable[[object, Revision], V],
        entry: str = _ENTRY,
    ) -> V | Refusal:
        began = self._monotonic()
        outcome = Outcome.VERDICT
        try:
            return _read(f"kyb.{package}.{entry}", self._ask(package, document, entry), read)
        except _Failure as failure:
            outcome = failure.outcome
            return Refusal(reason=Reason.POLICY_UNAVAILABLE, detail=str(failure))
        finally:
            self._observe(package, outcome, self._monotonic() - began)

    def _ask(self, package: str, document: Mapping[str, Any], entry: str = _ENTRY) -> _Answer:
        if not self._circuit.admits():
            raise _Failure(Outcome.AWAY, f"OPA at {self._url} is away")
        try:
            body = self._client.query_rule(
                document, f"kyb.{package}", entry, query_params={"provenance": "true"}
            )
        except (OSError, ValueError, TypeError) as error:  # requests' errors are OSErrors
            raise self._failure(error) from error
        self._circuit.close()
        answer = _answer(body)
        self._placements.seen(answer.revision)
        return answer

    def _failure(self, error: Exception) -> _Failure:
        response = getattr(error, "response", None)
        if response is not None:
            self._circuit.close()
            said = " ".join(response.text.split())[:_SHOWN]
            return _Failure(Outcome.FAILED, f"OPA answers {response.status_code}: {said}")
        if not isinstance(error, OSError) or isinstance(error, ValueError):
            return _Failure(Outcome.FAILED, f"question or answer is no JSON: {error}")
        self._circuit.open()
        self._placements.forget()
        kind = type(error).__name__
        return _Failure(Outcome.AWAY, f"OPA at {self._url} does not answer ({kind})")


def _read(rule: str, answer: _Answer, read: Callable[[object, Revision], V]) -> V:
    if not answer.defined:
        raise _Failure(Outcome.UNDEFINED, f"{rule} is undefined")
    try:
        return read(answer.result, answer.revision)
    except Malformed as problem:
        detail = f"{rule} is not what was asked for: {problem}"
        raise _Failure(Outcome.UNREADABLE, detail) from problem


def _read_timeslice(
    question: TimesliceQuestion, result: object, revision: Revision
) -> TimesliceVerdict:
    return policy.read_timeslice(result, question, revision)


def _answer(body: object) -> _Answer:
    if not isinstance(body, Mapping):
        raise _Failure(Outcome.FAILED, "OPA answers something that is not an object")
    return _Answer(body.get("result"), "result" in body, _revision(body))


def _revision(body: Mapping[str, Any]) -> Revision:
    """That of the bundle `kyb`; or of the only one, where OPA was started with a bundle's path."""
    provenance = body.get("provenance")
    bundles = provenance.get("bundles") if isinstance(provenance, Mapping) else None
    if not isinstance(bundles, Mapping):
        return NO_REVISION
    named = bundles.get(BUNDLE)
    only = next(iter(bundles.values())) if len(bundles) == 1 else None
    found = (named or only or {}).get("revision", "")
    return Revision(str(found))


def _client(url: str, timeout_s: float) -> "_Client":
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.port:
        raise ValueError(f"not the address of an OPA server: {url!r} (expected http://HOST:PORT)")
    return _Client(
        host=parts.hostname,
        port=parts.port,
        ssl=parts.scheme == "https",
        retries=0,  # the circuit decides when to try again
        timeout=timeout_s,
    )


class _Client(OpaClient):  # type: ignore[misc]  # the library has no types
    """Sessions that never ask the environment for a proxy or a password: OPA is on loopback."""

    def _init_session(self) -> Any:
        session = super()._init_session()
        session.trust_env = False
        session.get_adapter(self.root_url).init_poolmanager(_CONNECTIONS, _CONNECTIONS)
        return session
