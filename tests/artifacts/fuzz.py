"""
Feeds the readers of manifests, packs and key records with altered ones, for as long as is asked:

    .venv/bin/python tests/artifacts/fuzz.py 600

Bytes are flipped, cut, doubled and spliced; of manifests also the JSON's values. Whatever a reader
raises beside Unusable ends the run with its seed. The last line says how many inputs and seconds.
"""

import random
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import orjson

from kybernate.artifacts import keys, packs, signing
from kybernate.artifacts import manifest as manifests
from kybernate.artifacts.faults import Unusable
from kybernate.testing.artifacts import made

MADE = made({"a/b": b"x" * 3_000_000, "c": bytes(5_000_000), "d": b"y", "e": b""})
PACK = next(body for key, body in MADE.objects.items() if "/packs/" in key)
RECORD = next(body for key, body in MADE.objects.items() if key.endswith(".json"))
CONTENT = manifests.encode(MADE.manifest)
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 2**53, 2**63, 2**64 - 1, -(2**63), 1.5, 1e308, "", "a",
    "../..", "\0", "/" * 600, "A" * 70_000, [], {}, [[]], [1, 2], [[0, 0, 2**40]], [[2**43]],
]  # fmt: skip


def bytes_of(whole: bytes, dice: random.Random) -> bytes:
    """Altered somewhere, a few times."""
    altered = bytearray(whole)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(altered) or 1)
        way = dice.randrange(5)
        if way == 0 and altered:
            altered[at % len(altered)] ^= 1 << dice.randrange(8)
        elif way == 1:
            del altered[at:]
        elif way == 2:
            altered[at:at] = dice.randbytes(dice.randint(1, 40))
        elif way == 3:
            altered[at:at] = altered[: dice.randint(0, 200)]
        else:
            altered[-12:] = dice.randbytes(12) if dice.random() < 0.5 else altered[:12]
    return bytes(altered)


def json_of(whole: bytes, dice: random.Random) -> bytes:
    """A value somewhere replaced, doubled or taken away."""
    tree: Any = orjson.loads(whole)
    for _ in range(dice.randint(1, 4)):
        node, above, key = tree, None, None
        while isinstance(node, dict | list) and node and dice.random() < 0.8:
            above = node
            key = dice.choice(list(node)) if isinstance(node, dict) else dice.randrange(len(node))
            node = node[key]
        if above is None:
            continue
        if dice.random() < 0.2:
            del above[key]
        elif isinstance(above, list) and dice.random() < 0.3:
            above.extend(deepcopy(node) for _ in range(dice.randint(1, 50)))
        else:
            above[key] = deepcopy(dice.choice(ODD))
    return orjson.dumps(tree)


READERS: list[tuple[Callable[[bytes], object], bytes, Callable[[bytes, random.Random], bytes]]] = [
    (manifests.decode, CONTENT, json_of),
    (manifests.decode, CONTENT, bytes_of),
    (lambda body: signing.split(body, 2**20), MADE.objects[MADE.key], bytes_of),
    (packs.listed, PACK[-400:], bytes_of),
    (packs.listed, packs.MAGIC + PACK[-400:], bytes_of),
    (packs.decode_list, packs.encode_list(MADE.manifest.packs[0].chunks), bytes_of),
    (lambda body: keys.decode(body, "default", MADE.domain.id), RECORD, json_of),
    (lambda body: keys.decode(body, "default", MADE.domain.id), RECORD, bytes_of),
]


def main(seconds: float, seed: int = 1) -> int:
    """How many inputs. Raises what a reader should not have."""
    count, refused, began = 0, 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        dice = random.Random(f"{seed}/{count}")
        read, whole, alter = READERS[count % len(READERS)]
        body = alter(whole, dice)
        try:
            read(body)
        except Unusable:
            refused += 1
        except BaseException:
            print(f"seed {seed}/{count}: {body[:200]!r}")
            raise
        count += 1
    took = time.perf_counter() - began
    print(f"{count} inputs, {refused} refused, {took:.0f} s, none raised anything else")
    return count


if __name__ == "__main__":
    main(float(sys.argv[1]))
