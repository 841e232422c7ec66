"""
What goes with an image of processes on real GPUs, and which cards they are on when it wakes.

Called by `deep` and `driver`. Cards are named by their place in the workload's group, since those
of the next node have other names. Which cards stand for those of before is written beside the
workload's slot, since the driver asks for it only when the workload is resumed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from uuid import UUID

import orjson

from kybernate.model.ids import GpuUuid
from nodeagent.disk.durable import seal
from nodeagent.disk.pool import Pool
from nodeagent.mechanisms import Body, NotPossible

_VERSION = 1
_FILE = "cards.json"

Guests = Mapping[str, Mapping[str, int]]
"""Guests by nonce: the names they have for their cards, and the cards' places in the group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Cards of before with those of now, and what each guest is to be told. Names in hexadecimal.
    False where everything is on the cards it was on."""

    pairs: tuple[tuple[str, str], ...] = ()
    guests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(old != new for old, new in self.pairs)


def describe(mechanism: str, cards: tuple[GpuUuid, ...], guests: Guests) -> str:
    """The text that goes with an image."""
    whole = {
        "version": _VERSION,
        "mechanism": mechanism,
        "cards": [hexadecimal(card) for card in cards],
        "guests": guests,
    }
    return orjson.dumps(whole).decode()


def read(text: str, mechanism: str, cards: tuple[GpuUuid, ...]) -> Moved:
    """How it comes to be on these cards. Raises NotPossible."""
    try:
        whole = orjson.loads(text)
        if (whole["version"], whole["mechanism"]) != (_VERSION, mechanism):
            raise NotPossible(f"its GPU state is {whole['mechanism']}'s, {whole['version']}")
        old, new = whole["cards"], [hexadecimal(card) for card in cards]
        if len(old) != len(new):
            raise NotPossible(f"it was on {len(old)} GPUs, and here are {len(new)}")
        guests = {
            nonce: {name: new[place] for name, place in places.items()}
            for nonce, places in whole["guests"].items()
        }
        return Moved(pairs=tuple(zip(old, new, strict=True)), guests=guests)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise NotPossible(f"its GPU state cannot be read: {error}") from error


def hexadecimal(card: GpuUuid) -> str:
    """A card's name as the driver has it. Raises ValueError."""
    return UUID(card.removeprefix("GPU-")).hex


class Notes:
    """Beside the slots of woken workloads, until they run."""

    def __init__(self, pool: Pool | None) -> None:
        self._pool = pool

    def keep(self, body: Body, moved: Moved) -> None:
        """Written before it returns; nothing where nothing moved. Raises OSError."""
        if moved and self._pool is not None:
            seal(self._pool.slot(body.uid).folder / _FILE, orjson.dumps(asdict(moved)))

    def of(self, body: Body) -> Moved:
        """Nothing where there is no note. Raises NotPossible."""
        if self._pool is None:
            return Moved()
        try:
            found = orjson.loads((self._pool.slot(body.uid).folder / _FILE).read_bytes())
            pairs = tuple((old, new) for old, new in found["pairs"])
            return Moved(pairs=pairs, guests=found["guests"])
        except FileNotFoundError:
            return Moved()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotPossible(f"which cards it is on cannot be read: {error}") from error

    def drop(self, body: Body) -> None:
        """It runs, and its processes know their cards."""
        if self._pool is not None:
            (self._pool.slot(body.uid).folder / _FILE).unlink(missing_ok=True)
