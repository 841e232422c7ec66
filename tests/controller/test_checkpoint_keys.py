"""The keys of checkpoints: made once, rotated so that every agent believes every other throughout.

Faked: the API server (in memory) and the clock. Real: keys, signatures, and the agents' own reading
of the Secret's files.
"""

from pathlib import Path
from typing import Any

import pytest

from controller import secrets, signing
from controller.signing import SECRET, Signing, Terms
from kybernate.artifacts.faults import Unusable
from kybernate.clients.errors import Conflict
from kybernate.clients.resources import SECRETS
from kybernate.stores.ram import Ram
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube
from nodeagent.checkpoints.signing import Keys

SYSTEM = "kyb-system"
TERMS = Terms(lifetime=1000.0, overlap=60.0)


class World:
    """The API server, the duty, and agents that read the Secret when they get to it."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.kube = FakeKube(clock=self.clock, namespace=SYSTEM)
        self.signing = Signing(self.kube, self.clock, SYSTEM, TERMS)
        self._folder, self._mounted = folder, 0

    def secret(self) -> dict[str, Any]:
        return self.kube.get(SECRETS, SECRET, SYSTEM)

    def mounted(self) -> Keys:
        """An agent's view of the Secret as it is now; it stays as it is."""
        self._mounted += 1
        folder = self._folder / str(self._mounted)
        folder.mkdir()
        for name, content in secrets.decoded(self.secret()).items():
            (folder / name).write_bytes(content)
        return Keys(folder)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_key_is_made_once_and_stays(world: World) -> None:
    world.signing.look()
    first = world.secret()
    world.signing.look()
    assert world.secret() == first
    assert first["type"] == "Opaque"
    world.mounted().check(b"x", world.mounted().sign(b"x"))


def test_whatever_an_agent_signs_every_agent_believes_at_every_step_of_a_rotation(
    world: World,
) -> None:
    world.signing.look()
    first = world.mounted()
    signed, readers = [first.sign(b"x")], [first]
    for _ in range(55):  # 2,200 s: two rotations and more
        world.clock.advance(40.0)
        world.signing.look()
        current = world.mounted()
        readers = [*readers[-1:], current]  # a view is used for less than 60 s after its end
        signed.append(current.sign(b"x"))
        for reader in readers:
            reader.check(b"x", signed[-1])
    for old in signed:
        current.check(b"x", old)
    assert len({text.split(":")[1] for text in signed}) == 3


def test_a_key_that_was_thrown_away_is_replaced_and_others_stay_trusted(world: World) -> None:
    world.signing.look()
    old = world.mounted().sign(b"x")
    broken = world.secret()
    broken["data"] = {**broken["data"], "signing.key": "AAAA"}
    world.kube.replace(SECRETS, broken)
    world.signing.look()
    world.mounted().check(b"x", old)
    assert world.mounted().sign(b"x") != old


def test_a_key_that_a_person_takes_out_is_trusted_no_more(world: World) -> None:
    world.signing.look()
    old = world.mounted().sign(b"x")
    other = signing.make()
    revoked = world.secret()
    data = {"signing.key": other, "trusted.pem": signing.public(other)}
    revoked["data"] = secrets.encoded(data)
    world.kube.replace(SECRETS, revoked)
    world.signing.look()
    with pytest.raises(Unusable, match="not trusted"):
        world.mounted().check(b"x", old)


def test_what_another_leader_wrote_is_not_overwritten(world: World) -> None:
    world.signing.look()
    world.clock.advance(1001.0)
    world.kube.server.fail("PUT", "secrets", Conflict(409, "Conflict", "changed"))
    before = world.secret()
    with pytest.raises(Conflict):
        world.signing.look()
    assert world.secret() == before


def test_keys_are_never_printed(world: World) -> None:
    ring = signing.after(None, TERMS, 1.0, signing.make())
    assert "PRIVATE" not in repr(ring)
    wrapping = signing.make_wrapping()
    ring = signing.wrapped(ring, wrapping)
    assert wrapping.decode() not in repr(ring)


def test_a_key_that_wraps_is_made_once_and_outlives_every_rotation(world: World) -> None:
    world.signing.look()
    made = secrets.decoded(world.secret())["wrapping.key"]
    store = Ram(2**20, world.clock.now)
    key = world.mounted().ring().newest(store, "default")
    for _ in range(55):
        world.clock.advance(40.0)
        world.signing.look()
        assert secrets.decoded(world.secret())["wrapping.key"] == made
    assert world.mounted().ring().open(store, "default", key.id) == key


def test_a_secret_from_before_gets_a_key_that_wraps_and_keeps_what_people_put_there(
    world: World,
) -> None:
    world.signing.look()
    before = world.secret()
    data = secrets.decoded(before)
    del data["wrapping.key"]
    data["note.txt"] = b"ours"
    world.kube.replace(SECRETS, {**before, "data": secrets.encoded(data)})
    world.signing.look()
    after = secrets.decoded(world.secret())
    assert after["signing.key"] == data["signing.key"]
    assert after["note.txt"] == b"ours"
    world.mounted().ring()
    world.signing.look()
    assert secrets.decoded(world.secret()) == after


def test_two_nodes_that_share_it_have_one_key_for_a_domain_without_a_word(world: World) -> None:
    world.signing.look()
    one, other = (Ram(2**20, world.clock.now) for _ in range(2))
    ring = world.mounted().ring()
    assert ring.newest(one, "default") == world.mounted().ring().newest(other, "default")
    assert ring.newest(one, "default") != ring.newest(one, "team-a")
