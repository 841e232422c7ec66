"""Which certificates are issued and rotated, and when. No keys, no clock, no API."""

import dataclasses
from typing import Any

import pytest

from controller import certificates
from controller.certificates import (
    FOREIGN,
    Authority,
    Certificate,
    CreateAuthority,
    Entrust,
    Holding,
    Introduce,
    Issue,
    Mark,
    NoteDistributed,
    NoteSettled,
    Picture,
    Promote,
    Publish,
    Retire,
    Terms,
    Want,
)

OVERLAP = 60.0
WANTS = (Want(secret="kyb-a-tls", names=frozenset({"a"})),)
TERMS = Terms(overlap=OVERLAP, wants=WANTS)
OLD = Certificate(key="old", issuer="old", not_before=0, not_after=9000)
NEW = Certificate(key="new", issuer="new", not_before=6000, not_after=15000)


def a_leaf(issuer: str = "old", **fields: Any) -> Certificate:
    base = {"key": "leaf", "not_before": 0.0, "not_after": 900.0, "names": frozenset({"a"})}
    return Certificate(**(base | {"issuer": issuer} | fields))


def a_picture(authority: Authority, leaf: Certificate | None = None, **fields: Any) -> Picture:
    holding = Holding(certificate=leaf or a_leaf(), trust=authority.trust)
    base = {"holdings": {"kyb-a-tls": holding}, "bundles": {"kyb-mutating": authority.trust}}
    return Picture(**(base | {"authority": authority} | fields))


def told(authority: Authority, at: float = 0.0) -> Authority:
    mark = Mark(of=certificates.fingerprint(authority.trust), at=at)
    return dataclasses.replace(authority, distributed=mark)


STEADY = told(Authority(signer=OLD))


def test_nothing_is_done_where_all_is_well() -> None:
    assert certificates.plan(a_picture(STEADY), TERMS, now=100) == ()


@pytest.mark.parametrize(
    ("authority", "now"),
    [
        pytest.param(None, 0, id="there-is-none"),
        pytest.param(STEADY, 9000, id="it-has-expired"),
    ],
)
def test_an_authority_is_made_where_none_can_sign(authority: Authority | None, now: float) -> None:
    (step,) = certificates.plan(Picture(authority=authority), TERMS, now)
    assert isinstance(step, CreateAuthority)


def test_an_absent_or_unreadable_secret_is_issued_at_once() -> None:
    unreadable = {"kyb-a-tls": Holding(certificate=None, trust=frozenset())}
    for holdings in ({}, unreadable):
        picture = a_picture(STEADY, holdings=holdings)
        assert certificates.plan(picture, TERMS, 100) == (Issue("kyb-a-tls", "there is none"),)


@pytest.mark.parametrize(
    ("leaf", "now", "why"),
    [
        pytest.param(a_leaf(), 600, "two thirds of its lifetime are over", id="due"),
        pytest.param(a_leaf(), 900, "it has expired", id="expired"),
        pytest.param(a_leaf(names=frozenset()), 100, "names are missing: a", id="other-names"),
        pytest.param(a_leaf("stranger"), 100, "its authority is not trusted", id="a-strangers"),
    ],
)
def test_a_leaf_is_issued_anew(leaf: Certificate, now: float, why: str) -> None:
    assert certificates.plan(a_picture(STEADY, leaf), TERMS, now) == (Issue("kyb-a-tls", why),)


def test_a_leaf_with_more_names_than_wanted_stays() -> None:
    leaf = a_leaf(names=frozenset({"a", "b"}))
    assert certificates.plan(a_picture(STEADY, leaf), TERMS, 100) == ()


def test_a_webhook_configuration_without_our_bundle_gets_it() -> None:
    picture = a_picture(STEADY, bundles={"kyb-mutating": frozenset()})
    assert certificates.plan(picture, TERMS, 100) == (Publish("kyb-mutating"),)


def test_two_thirds_into_its_life_an_authority_gets_a_successor() -> None:
    leaf = a_leaf(not_before=5900, not_after=6800)
    assert certificates.plan(a_picture(STEADY, leaf), TERMS, 5999) == ()
    assert certificates.plan(a_picture(STEADY, leaf), TERMS, 6000) == (Introduce(),)


def test_a_successor_is_trusted_everywhere_before_it_signs() -> None:
    leaf = a_leaf(not_before=5900, not_after=6800)
    both = Authority(signer=OLD, next=NEW)
    unaware = Holding(certificate=leaf, trust=frozenset({"old"}))
    picture = a_picture(both, holdings={"kyb-a-tls": unaware}, bundles={"m": frozenset({"old"})})
    assert certificates.plan(picture, TERMS, 6000) == (Entrust("kyb-a-tls"), Publish("m"))
    assert certificates.plan(a_picture(both, leaf), TERMS, 6000) == (NoteDistributed(),)
    waiting = a_picture(told(both, 6000), leaf)
    assert certificates.plan(waiting, TERMS, 6000 + OVERLAP - 1) == ()
    assert certificates.plan(waiting, TERMS, 6000 + OVERLAP) == (Promote(),)


def test_an_authority_is_retired_long_after_the_last_leaf_has_left_it() -> None:
    old_leaf = a_leaf(not_before=5900, not_after=6800)
    new_leaf = dataclasses.replace(old_leaf, issuer="new")
    promoted = told(Authority(signer=NEW, previous=(OLD,)), 6000)
    assert certificates.plan(a_picture(promoted, old_leaf), TERMS, 6060) == (
        Issue("kyb-a-tls", FOREIGN),
    )
    assert certificates.plan(a_picture(promoted, new_leaf), TERMS, 6060) == (NoteSettled(),)
    settled = dataclasses.replace(promoted, settled=Mark(of="new", at=6060))
    assert certificates.plan(a_picture(settled, new_leaf), TERMS, 6119) == ()
    assert certificates.plan(a_picture(settled, new_leaf), TERMS, 6120) == (Retire(),)


def test_after_the_signer_was_lost_leaves_wait_until_all_trust_the_new_one() -> None:
    recovered = Authority(signer=NEW, previous=(OLD,))
    leaf = a_leaf(not_before=5900, not_after=6800)
    assert certificates.plan(a_picture(told(recovered, 6000), leaf), TERMS, 6001) == ()
    assert certificates.plan(a_picture(told(recovered, 6000), leaf), TERMS, 6060) == (
        Issue("kyb-a-tls", FOREIGN),
    )


def test_those_that_read_their_authority_once_have_notice_before_it_signs() -> None:
    patient = Terms(overlap=OVERLAP, wants=WANTS, notice=500.0)
    leaf = a_leaf(not_before=5900, not_after=8000)
    introduced = a_picture(told(Authority(signer=OLD, next=NEW), 6000), leaf)
    assert certificates.plan(introduced, patient, 6499) == ()
    assert certificates.plan(introduced, patient, 6500) == (Promote(),)


def test_a_leaf_of_a_lost_signer_that_is_due_does_not_wait_that_long() -> None:
    patient = Terms(overlap=OVERLAP, wants=WANTS, notice=500.0)
    recovered = told(Authority(signer=NEW, previous=(OLD,)), 6000)
    fresh, due = a_leaf(not_before=5900, not_after=8000), a_leaf(not_before=5000, not_after=6400)
    assert certificates.plan(a_picture(recovered, fresh), patient, 6100) == ()
    assert certificates.plan(a_picture(recovered, due), patient, 6059) == ()
    assert certificates.plan(a_picture(recovered, due), patient, 6060) == (
        Issue("kyb-a-tls", FOREIGN),
    )


def test_a_note_about_another_trust_counts_nothing() -> None:
    stale = dataclasses.replace(Authority(signer=OLD, next=NEW), distributed=Mark(of="old", at=0.0))
    leaf = a_leaf(not_before=5900, not_after=6800)
    assert certificates.plan(a_picture(stale, leaf), TERMS, 6100) == (NoteDistributed(),)
