"""At every instant of every rotation each client trusts each server, whatever dies in between.

Faked: the API server (in memory) and the clock. Real: the plan, the Secrets, keys and signatures.
Observed: every state of every Secret and of the webhook configuration, with its time. A reader may
still use any state that was current less than `OVERLAP` ago, and at each moment every pair of
states that may be in use at once must fit.
"""

import base64
import random
from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest

from controller import certificates, pki
from controller import secrets as secret_files
from controller.certificates import Terms, Want
from controller.issuing import Issuing, Lifetimes
from kybernate.clients.errors import Unavailable
from kybernate.clients.resources import SECRETS, VALIDATING_WEBHOOKS
from kybernate.testing.clock import START, FakeClock
from kybernate.testing.fakekube import FakeKube

SYSTEM = "kyb-system"
OVERLAP = 60.0
LIFETIMES = Lifetimes(authority=7200.0, leaf=1800.0)
TERMS = Terms(
    overlap=OVERLAP,
    wants=(
        Want(secret="kyb-webhook-tls", names=frozenset({"127.0.0.1", "kyb-webhook"})),
        Want(secret="kyb-client-tls", names=frozenset({"kyb-client"}), client=True),
    ),
)
CONFIGURATION = {
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "kyb-validating"},
    "webhooks": [{"name": "validate.kyb.ai", "clientConfig": {"url": "https://127.0.0.1"}}],
}


@dataclass(frozen=True)
class State:
    """Who signed the certificates that are shown, and whom each reader trusts."""

    issuers: frozenset[str] = frozenset()
    trusts: frozenset[frozenset[str]] = frozenset()


class World:
    """The API server, one `Issuing`, and what readers may hold at this moment."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.kube = FakeKube(CONFIGURATION, clock=self.clock, namespace=SYSTEM)
        self.issuing = Issuing(self.kube, self.clock, SYSTEM, TERMS, LIFETIMES)
        self.now = State()
        self.former: deque[tuple[float, State]] = deque()  # (until when it may be in use, state)
        self.signers: set[str] = set()
        self._wrap_writes()

    def _wrap_writes(self) -> None:
        """Observe the state after each single write."""
        server = self.kube.server
        send = server.send

        def observed(request: Any) -> Any:
            answer = send(request)
            if request.method in ("POST", "PUT", "PATCH"):
                self.former.append((self.clock.now() + OVERLAP, self.now))
                self.now = self.read()
                self.check()
            return answer

        server.send = observed  # type: ignore[method-assign]

    def read(self) -> "State":
        """What stands in the API server."""
        found = self.holdings()
        bundle = self.bundle()
        return State(
            issuers=frozenset(h.certificate.issuer for h in found if h.certificate),
            trusts=frozenset([*(h.trust for h in found), *([pki.trust(bundle)] * bool(bundle))]),
        )

    def check(self) -> None:
        """Every server's issuer that may be shown is trusted by every client that may look."""
        while self.former and self.former[0][0] <= self.clock.now():
            self.former.popleft()
        states = [self.now, *(state for _, state in self.former)]
        issuers = {issuer for state in states for issuer in state.issuers}
        trusts = {trust for state in states for trust in state.trusts}
        assert all(issuer in trust for issuer in issuers for trust in trusts)

    def holdings(self) -> list[Any]:
        found = (self.find(want.secret) for want in TERMS.wants)
        return [secret_files.read_holding(secret) for secret in found if secret is not None]

    def find(self, name: str) -> dict[str, Any] | None:
        found = self.kube.server.store.all(("", "secrets"), SYSTEM)
        return next((obj for obj in found if obj["metadata"]["name"] == name), None)

    def bundle(self) -> bytes:
        configuration = self.kube.get(VALIDATING_WEBHOOKS, "kyb-validating")
        return base64.b64decode(configuration["webhooks"][0]["clientConfig"].get("caBundle", ""))

    def look(self, crash_after: int | None = None) -> None:
        """One look; with `crash_after`, the process dies after that many writes."""
        if crash_after is None:
            self.issuing.look()
            self.note()
            return
        writes = 0
        send = self.kube.server.send

        def dying(request: Any) -> Any:
            nonlocal writes
            if request.method in ("POST", "PUT", "PATCH"):
                if writes == crash_after:
                    raise Unavailable(0, "Crash", "killed here")
                writes += 1
            return send(request)

        self.kube.server.send = dying  # type: ignore[method-assign]
        try:
            self.issuing.look()
        except Unavailable:
            pass
        finally:
            self.kube.server.send = send  # type: ignore[method-assign]
        self.issuing = Issuing(self.kube, self.clock, SYSTEM, TERMS, LIFETIMES)
        self.note()

    def note(self) -> None:
        authority = secret_files.read_authority(self.find(secret_files.CA))
        if authority is not None:
            self.signers.add(authority.signer.key)


@pytest.mark.parametrize("seed", range(16))
def test_whatever_dies_and_however_late_secrets_are_read(seed: int) -> None:
    world, chance = World(), random.Random(seed)
    while len(world.signers) < 3:
        assert world.clock.now() - START < 4 * LIFETIMES.authority, "rotation stands still"
        world.look(chance.choice([None, None, 0, 1, 2, 3]))
        world.clock.advance(chance.choice([1.0, 20.0, 59.0, 61.0, 120.0]))
        world.check()
        for holding in world.holdings():
            assert world.clock.now() < holding.certificate.not_after


def test_a_signer_that_was_lost_is_replaced_without_a_gap() -> None:
    world = World()
    world.look()
    world.clock.advance(100)
    world.kube.delete(SECRETS, secret_files.CA, SYSTEM)
    for _ in range(20):
        world.look()
        world.clock.advance(20)
        world.check()
    assert len(world.signers) == 2
    (issuer,) = {holding.certificate.issuer for holding in world.holdings()}
    assert {holding.trust for holding in world.holdings()} == {frozenset({issuer})}


def test_a_steady_state_is_left_alone() -> None:
    world = World()
    world.look()
    writes = [asked for asked in world.kube.asked if not asked.startswith("GET")]
    world.look()
    assert [asked for asked in world.kube.asked if not asked.startswith("GET")] == writes


def test_a_secret_somebody_spoiled_is_issued_again() -> None:
    world = World()
    world.look()
    secret = world.find("kyb-webhook-tls")
    assert secret is not None
    secret["data"]["tls.key"] = secret["data"]["ca.crt"]
    world.kube.replace(SECRETS, secret)
    assert secret_files.read_holding(world.find("kyb-webhook-tls") or {}).certificate is None
    world.issuing = Issuing(world.kube, world.clock, SYSTEM, TERMS, LIFETIMES)
    world.look()
    assert all(holding.certificate for holding in world.holdings())


def test_the_authority_outlives_what_it_signs_and_keys_are_never_printed() -> None:
    authority = pki.make_authority(1_700_000_000.0, 100.0)
    leaf = pki.make_leaf(authority, TERMS.wants[0], now=1_700_000_050.0, lifetime=900.0)
    read = pki.read(leaf.certificate, leaf.key)
    assert read is not None
    assert read.not_after == 1_700_000_100.0
    assert read.names == TERMS.wants[0].names
    assert "PRIVATE" not in repr(leaf)
    assert pki.read(leaf.certificate, authority.key) is None, "another certificate's key"


@pytest.mark.parametrize("pem", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA"])
def test_what_is_no_certificate_is_none(pem: bytes) -> None:
    assert pki.read(pem) is None
    assert pki.trust(pem) == frozenset()


def test_terms_name_what_is_missing() -> None:
    assert certificates.fingerprint(frozenset({"b", "a"})) == "a,b"
