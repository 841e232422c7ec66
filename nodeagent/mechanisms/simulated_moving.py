"""
What a workload on the simulated GPU is, as a text that goes with its checkpoint. Pure.

Called by: `simulated`. Cards are named by their place in the workload's group, since those of the
next node have other names.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from kybernate.clients.simgpu import Moved, Process, Segment
from kybernate.model.ids import GpuUuid
from nodeagent.mechanisms import NotPossible

_VERSION = 1


def describe(
    processes: Iterable[Process], segments: Mapping[str, Iterable[Segment]], cards: Sequence[str]
) -> str:
    """Of processes on these cards, one for each card of theirs, and segments by context."""
    contexts: dict[str, dict[str, Any]] = {}
    for process in processes:
        shape = contexts.setdefault(
            process.identity,
            {
                "identity": process.identity,
                "pid": process.own_pid,
                "cards": {},
                "segments": [
                    {
                        "name": s.name,
                        "card": cards.index(s.uuid),
                        "size": s.size,
                        "content": s.content,
                    }
                    for s in segments[process.context]
                ],
            },
        )
        shape["cards"][process.known_uuid] = cards.index(process.uuid)
    whole = {"version": _VERSION, "cards": len(cards), "contexts": list(contexts.values())}
    return orjson.dumps(whole).decode()


def read(text: str, cards: Sequence[GpuUuid]) -> tuple[Moved, ...]:
    """The contexts as they are to be on these cards. Raises NotPossible."""
    try:
        whole = orjson.loads(text)
        if whole["version"] != _VERSION:
            raise NotPossible(f"its GPU state is of version {whole['version']}")
        if whole["cards"] != len(cards):
            raise NotPossible(f"it was on {whole['cards']} GPUs, and here are {len(cards)}")
        return tuple(_moved(one, cards) for one in whole["contexts"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise NotPossible(f"its GPU state cannot be read: {error}") from error


def _moved(one: dict[str, Any], cards: Sequence[GpuUuid]) -> Moved:
    places = {index: GpuUuid(known) for known, index in one["cards"].items()}
    return Moved(
        identity=str(one["identity"]),
        own_pid=int(one["pid"]),
        cards={known: cards[index] for index, known in places.items()},
        segments=tuple(
            Segment(
                name=str(s["name"]),
                uuid=places[s["card"]],
                size=int(s["size"]),
                content=int(s["content"]),
                backed=False,
                digest="",
            )
            for s in one["segments"]
        ),
    )
