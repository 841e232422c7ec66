"""
Sealing and waking put together from the agent's parts. Called by `process`.
"""

import platform
from dataclasses import dataclass
from pathlib import Path

from kybernate.clients.clock import Clock
from kybernate.clients.kube import Kube
from kybernate.model.ids import NodeName, PodUid, WorkloadKey
from kybernate.model.probing import Outcome
from nodeagent.checkpoints.artifacts import Artifacts
from nodeagent.containers.learning import Containers, Node
from nodeagent.disk.woken import WokenNotes
from nodeagent.images import ProcessImages, RuncImages
from nodeagent.linux import processes
from nodeagent.lives.life import Lives
from nodeagent.sources import Cards
from nodeagent.stories.seal import Means
from nodeagent.stories.stage import Stage
from nodeagent.turns.coordinator import Coordinator
from nodeagent.waking import provenance
from nodeagent.waking.attempts import Attempts
from nodeagent.waking.candidates import Candidates, Shares
from nodeagent.waking.heritage import Heritage
from nodeagent.waking.provenance import Machine, Provenance
from nodeagent.waking.readings import Readings
from nodeagent.waking.sealings import Sealings, Wish
from nodeagent.waking.unborn import Unborn
from nodeagent.waking.wakings import Wakings


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What it takes."""

    node: NodeName
    kube: Kube
    cards: Cards
    artifacts: Artifacts
    stage: Stage
    lives: Lives
    coordinator: Coordinator
    criu_plugins: Path | None
    policy: Shares
    notes: WokenNotes
    wall: Clock  # for what people read; stories count by a clock that does not jump


def provenance_of(parts: Parts) -> Provenance:
    """Of this machine and its cards."""
    gpus = parts.cards.gpus
    machine = Machine(
        kernel=platform.release(),
        architecture=platform.machine(),
        boot=processes.boot_id(),
        cpu=provenance.features(),
        mechanism=parts.stage.tools.mechanism.name,
        product=gpus[0].product if gpus else "",
        driver=parts.cards.driver(),
    )
    return Provenance(
        api=parts.kube,
        node=parts.node,
        machine=machine,
        clock=parts.wall,
        woken=parts.notes.of,
    )


def images_of(parts: Parts) -> ProcessImages:
    """By runc and CRIU."""
    return RuncImages(parts.stage.tools.freezer, plugins=parts.criu_plugins)


def wakings_of(parts: Parts, node: Node, containers: Containers) -> Wakings:
    """Of this node's pods."""
    attempts = attempts_of(parts, node, containers)
    return Wakings(
        node=node,
        stage=parts.stage,
        lives=parts.lives,
        coordinator=parts.coordinator,
        containers=containers,
        images=attempts.images,
        attempts=attempts,
        heritage=attempts.heritage,
        unborn=attempts.unborn,
        readings=attempts.readings,
        notes=parts.notes,
    )


def attempts_of(parts: Parts, node: Node, containers: Containers) -> Attempts:
    """Of pods to wake."""
    artifacts = parts.artifacts
    return Attempts(
        stage=parts.stage,
        coordinator=parts.coordinator,
        images=images_of(parts),
        candidates=Candidates(
            node=parts.node,
            store=artifacts.store,
            peers=artifacts.peers,
            objects=artifacts.objects,
            claims=artifacts.claims,
            publish=artifacts.publisher.publish,
            policy=parts.policy,
        ),
        unborn=Unborn(
            node=node,
            stage=parts.stage,
            lives=parts.lives,
            coordinator=parts.coordinator,
            containers=containers,
        ),
        heritage=Heritage(api=parts.kube),
        here=provenance_of(parts).fingerprint,
        readings=Readings(artifacts.store),
    )


def sealings_of(parts: Parts) -> Sealings:
    """It listens to the coordinator, where it is told to."""
    images, artifacts = images_of(parts), parts.artifacts
    means = Means(store=artifacts.store, images=images, describe=provenance_of(parts).facts)
    return Sealings(
        stage=parts.stage,
        lives=parts.lives,
        coordinator=parts.coordinator,
        means=means,
        publish=artifacts.publisher.publish,
        paused=artifacts.publisher.paused,
        wall=parts.wall,
    )


@dataclass(frozen=True, slots=True)
class LastSealing:
    """Sealing for the hook of a pod that goes (`probing.leaving.Sealing`)."""

    sealings: Sealings

    def seconds(self, key: WorkloadKey) -> float:
        """As the port says."""
        return self.sealings.seconds(key)

    def seal(self, key: WorkloadKey, uid: PodUid, within: float) -> Outcome:
        """As the port says."""
        made = self.sealings.seal(Wish(key=key, uid=uid, leave_parked=True, within=within))
        return Outcome(passed=made.sealed is not None, say=str(made.refusal or ""))
