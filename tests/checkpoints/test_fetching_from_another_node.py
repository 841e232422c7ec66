"""A checkpoint goes from agent to agent, over mutual TLS, and arrives whole or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kybernate.model.checkpoint import Flaw
from nodeagent.checkpoints.faults import PeerAway, Unusable
from nodeagent.checkpoints.peers import Wanted
from nodeagent.checkpoints.store import Store

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"


def test_what_one_node_sealed_another_wakes_from(
    lent: Any, store: Store, new_store: Callable[..., Store], seal: Any, here: Any
) -> None:
    sealed, other, told = seal(store), new_store("node-b"), []
    wanted = Wanted(namespace=NAMESPACE, name=NAME, signature=sealed.signature, here=here)
    fetched = lent.peers(other).fetch(wanted, "node-a", told.append)
    assert fetched.manifest == sealed.manifest
    assert other.open(NAMESPACE, NAME, here, sealed.signature).size == sealed.size
    for path in ("image/pages-1.img", "image/empty.img", "gpu/0"):
        assert b"".join(fetched.read(path)) == b"".join(sealed.read(path))
    assert (told[-1].done, told[-1].total) == (sealed.size, sealed.size)
    assert told[-1].rate > 0


def test_only_agents_may_fetch(
    lent: Any, store: Store, new_store: Callable[..., Store], seal: Any, left: Any, tmp_path: Path
) -> None:
    seal(store)
    somebody = lent.identity("kyb-client", client=True)
    with pytest.raises(PeerAway, match="only agents may fetch"):
        lent.peers(new_store("node-b"), somebody).fetch(
            Wanted(namespace=NAMESPACE, name=NAME), "node-a"
        )
    assert left(tmp_path / "node-b") == []


def test_what_a_peer_has_not_is_absent(lent: Any, new_store: Callable[..., Store]) -> None:
    with pytest.raises(Unusable) as caught:
        lent.peers(new_store("node-b")).fetch(Wanted(namespace=NAMESPACE, name=NAME), "node-a")
    assert caught.value.reason is Flaw.ABSENT
