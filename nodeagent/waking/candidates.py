"""
The checkpoints a pod may wake from: claimed, had from wherever they are, given back.

Called by: `wakings`. Rule: a checkpoint is used only when it is the very one that was published,
and it fits this machine; its bytes are checked as they are taken out, before anything runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kybernate.artifacts.faults import DAMAGE, Unusable
from kybernate.clients.checkpoints import Checkpoints, Claimed
from kybernate.clients.errors import ApiError, Refused, Retry, Unavailable
from kybernate.model.checkpoint import Checkpoint, Fingerprint, Flaw, key_of
from kybernate.model.ids import NodeName
from kybernate.model.policy import SharingQuestion, SharingVerdict
from kybernate.model.verdict import Refusal
from kybernate.model.workload import Workload
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints.faults import PeerAway
from nodeagent.checkpoints.fetching import Tell, Use, Wanted
from nodeagent.checkpoints.objects import Objects
from nodeagent.checkpoints.peers import Peers
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
        admit(sealed, here, "")

    def have(
        self, claimed: Claimed, here: Fingerprint | None, use: Use, told: Tell = lambda _: None
    ) -> Sealed:
        """On this node, and used; its contents are checked while they are read. Where this node's
        copy is damaged, or has to come, another one is used; then `use` may be called once more.

        Raises Refused (Unusable, NoRoom, NotSealed), Retry where nobody could give it now, and what
        `use` raises.
        """
        one = claimed.checkpoint
        try:
            return self._used(one, here, use)
        except Unusable as problem:
            others = set(one.copies) - {self.node} or one.in_object_storage
            if problem.reason is not Flaw.ABSENT and not (problem.reason in DAMAGE and others):
                raise
        wanted = Wanted(namespace=one.namespace, name=one.name, signature=one.signature, here=here)
        nodes = tuple(node for node in one.copies if node != self.node)
        sealed = self._fetch(wanted, nodes, use, told, stored=one.in_object_storage)
        self.publish(sealed)
        return sealed

    def _used(self, one: Checkpoint, here: Fingerprint | None, use: Use) -> Sealed:
        """The copy here. Raises Unusable, and what `use` raises."""
        sealed = self.store.believed(one.namespace, one.name, here, one.signature)
        try:
            use(sealed)
        except Unusable as problem:
            self.store.damaged(sealed, problem)
            raise
        return sealed

    def give_back(self, claimed: Claimed) -> None:
        """Another pod may have it. Where that cannot be said now, it is free when this pod goes."""
        try:
            self.claims.give_back(claimed)
        except (ApiError, Unavailable) as error:
            get_logger(checkpoint=claimed.checkpoint.name).info("still claimed", why=str(error))

    def _fetch(
        self, wanted: Wanted, nodes: tuple[NodeName, ...], use: Use, told: Tell, *, stored: bool
    ) -> Sealed:
        """From the first of them that can give it, then from the object store."""
        problem: Refused | Retry = PeerAway("no other node has a copy of it")
        for node in nodes:
            try:
                return self.peers.fetch(wanted, node, told, elsewhere=stored, use=use)
            except (PeerAway, Unusable) as error:
                problem = error
            except ApiError as error:
                problem = PeerAway(f"where {node} is reached is not known: {error}")
        if stored:
            return self.objects.fetch(wanted, told, use=use)
        raise problem
