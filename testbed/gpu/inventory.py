"""
What the device shows: cards, processes, segments, as messages. And what tests may change of it.

Called by: `service`.
"""

from kybernate.clients.pb import simgpu_pb2 as pb
from testbed.gpu import content
from testbed.gpu.card import Card
from testbed.gpu.context import Context, Segment
from testbed.gpu.device import Device
from testbed.gpu.errors import Absent

FOREIGN_PID = 0
UNKNOWN_NUMA = -1


def take(device: Device, driver: str) -> pb.InventoryReply:
    """One picture of everything, as of one moment."""
    with device.reading() as (contexts, now):
        ours = [_process(c, uuid, now) for c in contexts for uuid in c.cards]
        return pb.InventoryReply(
            cards=[_card(card) for card in device.cards.values()],
            processes=ours + [_stranger(card) for card in device.cards.values() if card.foreign],
            scale=device.scale,
            driver=driver,
        )


def segment(one: Segment) -> pb.Segment:
    """A segment with the digest of what it holds."""
    held = one.content
    return pb.Segment(
        segment=one.name,
        card=one.card.gpu.uuid,
        bytes=one.size,
        content=one.length,
        backed=held is not None,
        digest="" if held is None else content.digest(held),
    )


def inject(device: Device, wish: pb.InjectRequest) -> None:
    """Change a card, or every card where none is named. Raises Absent, NoRoom."""
    with device.changing():
        for card in _chosen(device, wish.card):
            if wish.HasField("foreign_bytes"):
                card.let_in(wish.foreign_bytes)
            if wish.HasField("healthy"):
                card.healthy = wish.healthy
            if wish.HasField("bus_bytes_per_second"):
                card.rate(wish.bus_bytes_per_second)


def _chosen(device: Device, uuid: str) -> tuple[Card, ...]:
    if not uuid:
        return tuple(device.cards.values())
    if uuid not in device.cards:
        raise Absent(f"no card {uuid!r}")
    return (device.cards[uuid],)


def _card(card: Card) -> pb.Card:
    gpu = card.gpu
    return pb.Card(
        index=gpu.index,
        uuid=gpu.uuid,
        product=gpu.product,
        memory=gpu.memory,
        used=card.shown,
        healthy=card.healthy,
        numa=UNKNOWN_NUMA if gpu.numa is None else gpu.numa,
        links=gpu.links,
        bus_bytes_per_second=card.out.bytes_per_second,
    )


def _process(context: Context, uuid: str, now: float) -> pb.Process:
    card = context.cards[uuid]
    activity = context.activity[card.gpu.uuid]
    return pb.Process(
        pid=context.pid,
        context=context.name,
        card=card.gpu.uuid,
        used=context.used(card),
        locked=context.locked,
        idle_seconds=activity.idle(now),
        submitted=activity.submitted,
        waiting=context.waiting,
        pid_namespace=context.namespace,
        identity=context.identity,
        known_card=uuid,
    )


def _stranger(card: Card) -> pb.Process:
    return pb.Process(pid=FOREIGN_PID, card=card.gpu.uuid, used=card.foreign)
