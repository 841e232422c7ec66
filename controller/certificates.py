"""Which certificates to issue or rotate next, as a plan. Pure; `issuing` carries it out.

Rule: at every instant every client trusts every server, whoever has already read the newest Secret
and whoever has not, and wherever this process died. So a new authority goes through three steps,
each begun only when everybody had the time to read the one before (`Terms`):

    introduce  next    is trusted everywhere, signs nothing
    promote    next -> signer; leaves are issued anew; the old one is still trusted
    retire     the old one is trusted no more

Certificates are known here by the key id of their authority, so that a plan holds no secrets.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

KeyId = str  # hex of an authority's subject key identifier
Trust = frozenset[KeyId]

DUE = 2 / 3  # of a lifetime: a third is left to notice that rotation does not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What matters of a certificate. Times are seconds since the epoch."""

    key: KeyId
    issuer: KeyId
    not_before: float
    not_after: float
    names: frozenset[str] = frozenset()

    def due(self, now: float) -> bool:
        """Whether it should be replaced by now."""
        return now >= self.not_before + DUE * (self.not_after - self.not_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Since when something holds. `of` says what, so that a mark of anything else is void."""

    of: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The Secret `kyb-ca`.

    `distributed`: everybody was given this trust. `settled`: every leaf is this signer's.
    """

    signer: Certificate
    next: Certificate | None = None
    previous: tuple[Certificate, ...] = ()
    distributed: Mark | None = None
    settled: Mark | None = None

    @property
    def trust(self) -> Trust:
        """The key ids everybody has to trust now."""
        upcoming = () if self.next is None else (self.next,)
        return frozenset(c.key for c in (self.signer, *upcoming, *self.previous))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One Secret of a process: its certificate (None where unreadable) and whom it trusts."""

    certificate: Certificate | None
    trust: Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Everything the plan depends on. `bundles` are the webhook configurations that exist."""

    authority: Authority | None
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    bundles: Mapping[str, Trust] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A Secret that should exist, and the names its certificate has to carry.

    A server's certificate proves nobody as a client, and a client's serves nothing.
    """

    secret: str
    names: frozenset[str]
    client: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Seconds. `overlap` covers the slowest reader that looks again: a kubelet's Secret refresh
    and our reload. `notice` covers those that read their authority only when they start
    (kube-scheduler, OPA): so long a new one is trusted before it signs.
    """

    overlap: float
    wants: tuple[Want, ...]
    notice: float = 0.0


@dataclass(frozen=True, slots=True)
class CreateAuthority:
    """Make a signer; every authority that somebody still trusts is kept as a previous one."""

    why: str


@dataclass(frozen=True, slots=True)
class Introduce:
    """Make the next signer."""


@dataclass(frozen=True, slots=True)
class Promote:
    """The next signer signs; the signer becomes a previous one."""


@dataclass(frozen=True, slots=True)
class Retire:
    """Drop the previous ones."""


@dataclass(frozen=True, slots=True)
class Issue:
    """A new key and certificate for this Secret, and today's trust."""

    secret: str
    why: str


@dataclass(frozen=True, slots=True)
class Entrust:
    """Write today's trust into this Secret; its certificate stays."""

    secret: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Write today's trust into this webhook configuration's `caBundle`."""

    configuration: str


@dataclass(frozen=True, slots=True)
class NoteDistributed:
    """Everybody has been given today's trust, as of now."""


@dataclass(frozen=True, slots=True)
class NoteSettled:
    """Every leaf is the signer's, as of now."""


Step = (
    CreateAuthority | Introduce | Promote | Retire | Issue | Entrust | Publish | NoteDistributed
    | NoteSettled
)  # fmt: skip


def fingerprint(trust: Trust) -> str:
    """A trust as a Mark names it."""
    return ",".join(sorted(trust))


def plan(picture: Picture, terms: Terms, now: float) -> tuple[Step, ...]:
    """The steps that may be taken now, in order; plan again afterwards. Empty: all is well."""
    authority = picture.authority
    if authority is None:
        return (CreateAuthority("there is none"),)
    if now >= authority.signer.not_after:
        return (CreateAuthority("the signer has expired"),)
    here = _Situation(authority, picture, terms, now)
    for stage in (_trust, _promotion, _leaves, _retirement):
        steps = tuple(stage(here))
        if steps:
            return steps
    return ()


@dataclass(frozen=True, slots=True)
class _Situation:
    authority: Authority
    picture: Picture
    terms: Terms
    now: float

    def trusted_for(self, seconds: float) -> bool:
        """Whether today's trust was given out so long ago, and by now every reader has it."""
        mark = self.authority.distributed
        if not _noted(mark, fingerprint(self.authority.trust)):
            return False
        return _lasts(mark, self, max(seconds, self.terms.overlap))

    def settled(self) -> bool:
        """Whether every leaf is the signer's."""
        leaves = [self.picture.holdings[want.secret].certificate for want in self.terms.wants]
        return all(leaf and leaf.issuer == self.authority.signer.key for leaf in leaves)


def _trust(here: _Situation) -> Iterator[Step]:
    """Trust before anything else: who lacks an authority cannot read what it signs."""
    trust = here.authority.trust
    for want in here.terms.wants:
        holding = here.picture.holdings.get(want.secret)
        if holding is None or holding.certificate is None:
            yield Issue(want.secret, "there is none")
        elif holding.trust != trust:
            yield Entrust(want.secret)
    for configuration, given in sorted(here.picture.bundles.items()):
        if given != trust:
            yield Publish(configuration)


def _promotion(here: _Situation) -> Iterator[Step]:
    authority = here.authority
    if not _noted(authority.distributed, fingerprint(authority.trust)):
        yield NoteDistributed()
    elif authority.next is not None and here.trusted_for(here.terms.notice):
        yield Promote()


def _leaves(here: _Situation) -> Iterator[Step]:
    for want in here.terms.wants:
        why = _why_issue(want, here)
        if why and (why != FOREIGN or _may_move(want, here)):
            yield Issue(want.secret, why)


def _may_move(want: Want, here: _Situation) -> bool:
    """Whether a leaf of a former signer may become the new one's. One that is due cannot wait."""
    leaf = here.picture.holdings[want.secret].certificate
    due = leaf is not None and leaf.due(here.now)
    return here.trusted_for(0.0 if due else here.terms.notice)


FOREIGN = "its authority signs no more"


def _why_issue(want: Want, here: _Situation) -> str:
    leaf = here.picture.holdings[want.secret].certificate
    assert leaf is not None  # `_trust` issues what is absent first
    if leaf.issuer not in here.authority.trust:
        return "its authority is not trusted"
    if here.now >= leaf.not_after:
        return "it has expired"
    if leaf.issuer != here.authority.signer.key:
        return FOREIGN
    if not want.names <= leaf.names:
        return "names are missing: " + ", ".join(sorted(want.names - leaf.names))
    return "two thirds of its lifetime are over" if leaf.due(here.now) else ""


def _retirement(here: _Situation) -> Iterator[Step]:
    authority = here.authority
    if authority.previous:
        if not here.settled():
            return
        if not _noted(authority.settled, authority.signer.key):
            yield NoteSettled()
        elif _lasts(authority.settled, here, here.terms.overlap):
            yield Retire()
    elif authority.next is None and authority.signer.due(here.now):
        yield Introduce()


def _noted(mark: Mark | None, of: str) -> bool:
    return mark is not None and mark.of == of


def _lasts(mark: Mark | None, here: _Situation, seconds: float) -> bool:
    return mark is not None and here.now - mark.at >= seconds
