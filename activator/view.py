"""
What an activator knows, as JSON, for people and programs; the page has a board of its own.

Called by: `admin`, for `/debug/view`. `docs/reference/activator.md` has it field by field.
"""

from collections.abc import Iterable
from typing import Any

from activator.catalog import Catalog
from activator.figures import Figures, percentiles
from activator.models import TIERS, Model, ModelId
from activator.queues import Queue

Json = dict[str, Any]


def view(catalog: Catalog, queues: Iterable[Queue], figures: Figures, now: float) -> Json:
    """Everything, at the wall clock's `now`."""
    by_id = {queue.id: queue for queue in queues}
    models = sorted(catalog.models.values(), key=lambda model: model.id)
    total = sum(figures.tiers.values())
    return {
        "time": round(now, 3),
        "models": [_model(model, by_id.get(model.id)) for model in models],
        "tiers": {tier: _share(figures.tiers[tier], total) for tier in TIERS},
        "waiting": percentiles(figures.waits),
        "answering": percentiles(figures.seconds),
        "queued": sum(len(queue.held) for queue in by_id.values()),
        "in_flight": sum(len(queue.under_way) for queue in by_id.values()),
        "answered": total,
        "refused": dict(figures.refusals),
        "left": figures.left,
        "wakes": figures.wakes,
        "wakes_failed": figures.wakes_failed,
    }


def _model(model: Model, queue: Queue | None) -> Json:
    places = model.places
    first = next(iter(model.serving or places), None)
    state = first.state.value if first else ("Zero" if model.owner else "Absent")
    return {
        "id": str(ModelId(*model.id)),
        "name": model.id.name,
        "namespace": model.id.namespace,
        "state": state,
        "tier": model.tier,
        "pod": first.key.name if first else "",
        "node": first.node if first else "",
        "pods": [
            {
                "name": place.key.name,
                "node": place.node,
                "state": place.state.value,
                "tier": place.tier.value if place.tier else "",
                "why": place.why,
            }
            for place in places
        ],
        "replicas": model.owner.replicas if model.owner else len(places),
        "queued": len(queue.held) if queue else 0,
        "in_flight": len(queue.under_way) if queue else 0,
        "waking": bool(queue and queue.waking),
        "why": (queue.why if queue else "") or (first.why if first else ""),
        "seconds_left": round(queue.seconds_left, 2) if queue else 0.0,
        "requests": queue.taken if queue else 0,
    }


def _share(count: int, total: int) -> Json:
    return {"requests": count, "share": round(count / total, 4) if total else 0.0}
