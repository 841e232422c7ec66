"""
What the page's board is told: where models stand, which cards there are, what becomes of requests.

Called by: `process` (changes of models and nodes), `queues` through `Figures` (requests).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from activator.catalog import Catalog
from activator.models import ModelId, Place
from activator.page import Board
from activator.page.board import Place as Shown


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU; bytes."""

    index: int
    product: str
    memory: int
    used: int


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node with an agent: where that is called, the cards, and which of them a group has."""

    address: str
    cards: tuple[Card, ...]
    groups: Mapping[str, tuple[int, ...]]


class Telling:
    """In the loop's thread."""

    def __init__(self, board: Board, catalog: Catalog) -> None:
        self._board, self._catalog = board, catalog
        self._nodes: dict[str, NodeSeen] = {}
        self._shown: dict[ModelId, dict[str, Place]] = {}

    def node(self, name: str, seen: NodeSeen | None) -> None:
        """A node is as seen, or gone."""
        if seen is None:
            self._nodes.pop(name, None)
            return
        self._nodes[name] = seen
        for card in seen.cards:
            self._board.card(name, card.index, card.product, card.memory, card.used)

    def model(self, model: ModelId) -> None:
        """Its pods are as the catalog has them."""
        known = self._catalog.models.get(model)
        places = {place.key.name: place for place in known.places} if known else {}
        before = self._shown.pop(model, {})
        name = self.name(model)
        for pod in before.keys() - places.keys():
            self._board.gone(name, pod)
        for pod, place in places.items():
            if before.get(pod) != place:
                self._placed(name, pod, place)
        if known is not None:
            self._shown[model] = places

    def name(self, model: ModelId) -> str:
        """As clients call it."""
        found = self._catalog.find(model.name)
        alone = getattr(found, "id", None) == model
        return model.name if alone else str(model)

    def _placed(self, name: str, pod: str, place: Place) -> None:
        node = self._nodes.get(place.node)
        shown = Shown(
            node=place.node,
            gpus=node.groups.get(place.group, ()) if node else (),
            state=place.state.value,
            tier=place.tier.value if place.tier else "none",
            vram=place.vram,
            why=place.why,
        )
        self._board.placed(name, shown, pod)
