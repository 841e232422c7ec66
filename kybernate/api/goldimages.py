"""
Gold images that a CheckpointPolicy has made: what they are called, and which a pod may wake from.

Called by: the controller, which has them made, the webhook, which names them to pods. Pure.
Rule: the name says of which image and command it is, so that what is there for a pod is known
without opening anything, and two who look at the same pod ask for the same image.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from kybernate.api import pods

_VERSION = re.compile(r"-[0-9a-f]{10}")


@dataclass(frozen=True, slots=True)
class Seated:
    """What there is to know of a pod that has, or wants, a seat: labels, and `version` of image and
    command of the seat's container."""

    labels: Mapping[str, str]
    version: str


def seated(pod: Mapping[str, Any]) -> Seated | None:
    """None for a pod that wants no seat."""
    wanted = pods.seat_container(pod)
    named = (one for one in pod["spec"].get("containers") or () if one.get("name", "") == wanted)
    container = None if wanted is None else next(named, None)
    if container is None:
        return None
    said = [container.get("image", ""), container.get("command"), container.get("args")]
    version = hashlib.sha256(orjson.dumps(said)).hexdigest()[:10]
    return Seated(labels=pod["metadata"].get("labels") or {}, version=version)


def name_of(family: str, version: str) -> str:
    """Of the image that a policy's `gold` has made of this version."""
    return f"{family}-{version}"


def is_of(family: str, name: str) -> bool:
    """Whether it is called as one that this policy has made."""
    rest = name.removeprefix(family)
    return name.startswith(family) and _VERSION.fullmatch(rest) is not None
