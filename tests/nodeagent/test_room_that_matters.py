"""Which changes of the tiers below are seen: room that grows may be enough for one more.

Real: what the looks compare.
"""

from dataclasses import replace

import pytest

from kybernate.decisions.books import Books
from nodeagent import tiering
from nodeagent.gpus.cards import Below

GIB = 2**30


@pytest.mark.parametrize("tier", ["pool_free", "nvme_free", "object_free"])
def test_room_that_grows_is_noticed(tier: str) -> None:
    below = Below(pool_free=GIB, nvme_free=GIB, object_free=GIB)
    assert replace(below, **{tier: 2 * GIB}).matters() != below.matters()
    books = Books(memory={}, groups={}, pool_free=GIB, nvme_free=GIB, object_free=GIB)
    grown = replace(books, **{tier: 2 * GIB})
    assert tiering._matters(grown) != tiering._matters(books)
