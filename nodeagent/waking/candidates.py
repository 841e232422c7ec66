"""
The checkpoints a pod may wake from: claimed, had from wherever they are, given back.

Called by: `wakings`. Rule: a checkpoint is used only when it is the very one that was published,
every byte of it was compared, and it fits this machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kybernate.artifacts.faults import DAMAGE, Unusable
from kybernate.clients.checkpoints import Checkpoints, Claimed
from kybernate.clients.errors import ApiError, Refused, Retry, Unavailable
from kybernate.model.checkpoint import Fingerprint, Flaw, key_of
from kybernate.model.ids import NodeName
from kybernate.model.policy import SharingQuestion, SharingVerdict
from kybernate.model.verdict import Refusal
from kybernate.model.workload import Workload
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints.faults import PeerAway
from nodeagent.checkpoints.objects import Objects
from nodeagent.checkpoints.peers import Peers, Tell, Wanted
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store, admit


class Shares(Protocol):
    """The part of the policy port that is needed."""

    def sharing(self, question: SharingQuestion) -> SharingVerdict | Refusal:
        """Whether a namespace may wake from a gold image of another."""


class NotClaimed(Refused):
    """Another pod has it, or it is not there; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Thread safe."""

    node: NodeName
    store: Store
    peers: Peers
    objects: Objects
    claims: Checkpoints
    publish: Callable[[Sealed], None]
    policy: Shares

    def claim(self, pod: Workload, named: str) -> Claimed:
        """What the pod names; of another namespace a gold image that policy shares with its own.
        Raises NotClaimed, Unavailable."""
        namespace, name = key_of(named, pod.key.namespace)
        afar = namespace != pod.key.namespace
        if afar:
            self._see_shared(pod, namespace, name)
        try:
            answer = self.claims.take(namespace, name, pod.key.name, pod.uid, afar=afar)
        except ApiError as error:
            raise NotClaimed(f"it cannot be claimed: {error}") from error
        if isinstance(answer, Refusal):
            raise NotClaimed(str(answer))
        return answer

    def _see_shared(self, pod: Workload, namespace: str, name: str) -> None:
        """Raises NotClaimed where policy does not say so, or says nothing."""
        question = SharingQuestion(by=pod.key.namespace, namespace=namespace, name=name)
        verdict = self.policy.sharing(question)
        if isinstance(verdict, Refusal):
            raise NotClaimed(f"no word of policy, so it is not shared: {verdict.detail}")
        if not verdict.allow:
            words = f"{namespace}/{name} with namespace {pod.key.namespace} ({verdict.reason})"
            raise NotClaimed(f"policy {verdict.revision} does not share {words}")

    def check(self, sealed: Sealed, here: Fingerprint) -> None:
        """Whether it may wake here, where that was not known when it was had. Raises Unusable."""
        admit(sealed.manifest, sealed.signature, here, "")

    def have(
        self, claimed: Claimed, here: Fingerprint | None, told: Tell = lambda _: None
    ) -> Sealed:
        """On this node, verified. Raises Refused (Unusable, NoRoom, NotSealed), and Retry where
        nobody could give it now."""
        one = claimed.checkpoint
        try:
            return self.store.open(one.namespace, one.name, here, one.signature)
        except Unusable as problem:
            others = set(one.copies) - {self.node} or one.in_object_storage
            if problem.reason is not Flaw.ABSENT and not (problem.reason in DAMAGE and others):
                raise
        wanted = Wanted(namespace=one.namespace, name=one.name, signature=one.signature, here=here)
        nodes = tuple(node for node in one.copies if node != self.node)
        sealed = self._fetch(wanted, nodes, told, stored=one.in_object_storage)
        self.publish(sealed)
        return sealed

    def give_back(self, claimed: Claimed) -> None:
        """Another pod may have it. Where that cannot be said now, it is free when this pod goes."""
        try:
            self.claims.give_back(claimed)
        except (ApiError, Unavailable) as error:
            get_logger(checkpoint=claimed.checkpoint.name).info("still claimed", why=str(error))

    def _fetch(
        self, wanted: Wanted, nodes: tuple[NodeName, ...], told: Tell, *, stored: bool
    ) -> Sealed:
        """From the first of them that can give it, then from the object store."""
        problem: Refused | Retry = PeerAway("no other node has a copy of it")
        for node in nodes:
            try:
                return self.peers.fetch(wanted, node, told, elsewhere=stored)
            except (PeerAway, Unusable) as error:
                problem = error
            except ApiError as error:
                problem = PeerAway(f"where {node} is reached is not known: {error}")
        if stored:
            return self.objects.fetch(wanted, told, hurry=True)
        raise problem
