"""Carries out the plan of `certificates`, on Secrets and webhook configurations.

Called by the leader's queue. Rule: every write is a compare-and-swap (by resourceVersion, or by a
test inside the patch), so that a second leader, or a person, is noticed and never overwritten.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller import certificates, pki, secrets
from controller.certificates import (
    CreateAuthority,
    Entrust,
    Introduce,
    Issue,
    NoteDistributed,
    NoteSettled,
    Picture,
    Promote,
    Publish,
    Retire,
    Step,
)
from controller.duties import Duty
from controller.secrets import AuthorityFiles
from kybernate.clients.clock import Clock
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube, PatchKind
from kybernate.clients.reflector import Reflector
from kybernate.clients.resources import (
    MUTATING_WEBHOOKS,
    SECRETS,
    VALIDATING_WEBHOOKS,
    Resource,
)
from kybernate.runtime.logs import get_logger

Obj = dict[str, Any]

CONFIGURATIONS: Mapping[str, Resource] = {
    "kyb-mutating": MUTATING_WEBHOOKS,
    "kyb-validating": VALIDATING_WEBHOOKS,
}
# More rounds than the longest way: create, issue all, publish, note. Beyond it something undoes
# what we do, and a pause is better than a fight.
_ROUNDS = 8
_PAUSE = 1.0
_EVERY = 30.0  # seconds: so soon is a Secret that somebody deleted back
_KEY = secrets.CA  # there is only one thing to look at: all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """Seconds a new certificate is valid."""

    authority: float
    leaf: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """The objects as they were read; None for what is not there."""

    secrets: Mapping[str, Obj | None]
    configurations: Mapping[str, Obj]

    def secret(self, name: str, namespace: str) -> Obj:
        return self.secrets[name] or secrets.new(namespace, name)

    def files(self) -> AuthorityFiles:
        found = secrets.read_authority_files(self.secrets[secrets.CA])
        assert found is not None  # every step but CreateAuthority is planned with an authority
        return found

    def picture(self) -> Picture:
        holdings = {n: secrets.read_holding(s) for n, s in self.secrets.items() if s is not None}
        holdings.pop(secrets.CA, None)
        return Picture(
            authority=secrets.read_authority(self.secrets[secrets.CA]),
            holdings=holdings,
            bundles={n: pki.trust(_ca_bundle(c)) for n, c in self.configurations.items()},
        )


class Issuing:
    """Keeps our certificates as the plan wants them."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        namespace: str,
        terms: certificates.Terms,
        lifetimes: Lifetimes,
    ) -> None:
        self._kube, self._clock, self._namespace = kube, clock, namespace
        self._terms, self._lifetimes = terms, lifetimes
        self.watches = tuple(
            Reflector(
                kube,
                resource,
                field_selector=f"metadata.name={name}",
                project=lambda obj: str(obj["metadata"]["resourceVersion"]),
                on_change=lambda _: self.duty.touch(_KEY),
            )
            for name, resource in CONFIGURATIONS.items()
        )
        self.duty: Duty[str] = Duty("certificates", clock, self.look, lambda: [_KEY])
        self._log = get_logger(duty="certificates")

    def look(self, _key: str = _KEY) -> float:
        """Take every step that may be taken now; seconds until the next look. Raises ApiError."""
        for _ in range(_ROUNDS):
            seen = self._observe()
            steps = certificates.plan(seen.picture(), self._terms, self._clock.now())
            if not steps:
                return min(_EVERY, self._terms.overlap / 2)
            for step in steps:
                self.take(step, seen)
        return _PAUSE

    def take(self, step: Step, seen: _Seen) -> None:
        """One step. Raises ApiError; nothing is half written then."""
        self._log.info("certificates", step=repr(step))
        match step:
            case Issue(name):
                self._write(self._issued(name, seen))
            case Entrust(name):
                secret = seen.secret(name, self._namespace)
                self._write(secrets.with_trust(secret, seen.files().bundle))
            case Publish(name):
                self._publish(name, seen.configurations[name], seen.files().bundle)
            case _:
                self._write(self._authority(step, seen))

    def _observe(self) -> _Seen:
        wanted = [secrets.CA, *(want.secret for want in self._terms.wants)]
        configurations = {n: self._find(r, n) for n, r in CONFIGURATIONS.items()}
        return _Seen(
            {name: self._find(SECRETS, name) for name in wanted},
            {n: found for n, found in configurations.items() if found and found.get("webhooks")},
        )

    def _find(self, resource: Resource, name: str) -> Obj | None:
        try:
            return self._kube.get(resource, name, self._namespace if resource.namespaced else None)
        except NotFound:
            return None

    def _authority(self, step: Step, seen: _Seen) -> Obj:
        """`kyb-ca` after one of the steps that concern it alone."""
        secret, now = seen.secret(secrets.CA, self._namespace), self._clock.now()
        match step:
            case CreateAuthority():
                return secrets.with_authority(secret, self._created(seen))
            case Introduce():
                made = pki.make_authority(now, self._lifetimes.authority)
                return secrets.with_authority(secret, replace(seen.files(), next=made))
            case Promote():
                return secrets.with_authority(secret, _promoted(seen.files()))
            case Retire():
                return secrets.with_authority(secret, replace(seen.files(), previous=b""))
            case NoteDistributed():
                trust = certificates.fingerprint(pki.trust(seen.files().bundle))
                return secrets.with_mark(secret, secrets.DISTRIBUTED, trust, now)
            case NoteSettled():
                (signer,) = pki.trust(seen.files().signer.certificate)
                return secrets.with_mark(secret, secrets.SETTLED, signer, now)
        raise AssertionError(step)

    def _created(self, seen: _Seen) -> AuthorityFiles:
        """A new signer. Whatever somebody trusts today stays trusted until all leaves are ours."""
        trusted = (secrets.trusted(s) for n, s in seen.secrets.items() if s and n != secrets.CA)
        kept: dict[str, bytes] = {}
        for bundle in trusted:
            kept |= pki.split(bundle)
        signer = pki.make_authority(self._clock.now(), self._lifetimes.authority)
        return AuthorityFiles(signer=signer, previous=b"".join(kept.values()))

    def _issued(self, name: str, seen: _Seen) -> Obj:
        files = seen.files()
        want = next(want for want in self._terms.wants if want.secret == name)
        now, lifetime = self._clock.now(), self._lifetimes.leaf
        pair = pki.make_leaf(files.signer, want, now=now, lifetime=lifetime)
        secret = seen.secret(name, self._namespace)
        return secrets.with_identity(secret, pair, files.bundle)

    def _write(self, secret: Obj) -> None:
        if "resourceVersion" in secret["metadata"]:
            self._kube.replace(SECRETS, secret)
        else:
            self._kube.create(SECRETS, secret)

    def _publish(self, name: str, configuration: Obj, bundle: bytes) -> None:
        text = base64.b64encode(bundle).decode()
        patch: list[Obj] = []
        for index, webhook in enumerate(configuration["webhooks"]):
            at = f"/webhooks/{index}"
            patch += [
                {"op": "test", "path": f"{at}/name", "value": webhook["name"]},
                {"op": "add", "path": f"{at}/clientConfig/caBundle", "value": text},
            ]
        self._kube.patch(CONFIGURATIONS[name], name, patch, kind=PatchKind.JSON)


def _promoted(files: AuthorityFiles) -> AuthorityFiles:
    assert files.next is not None
    return AuthorityFiles(
        signer=files.next, next=None, previous=files.signer.certificate + files.previous
    )


def _ca_bundle(configuration: Obj) -> bytes:
    """What all its webhooks trust alike; empty where they differ, so that it is written again."""
    texts = {w["clientConfig"].get("caBundle", "") for w in configuration["webhooks"]}
    return base64.b64decode(texts.pop()) if len(texts) == 1 else b""
