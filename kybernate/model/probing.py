"""Probes and hooks of a seat container as their owner wrote them. Times are in seconds."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the kubelet asks for."""

    LIVENESS = "liveness"
    READINESS = "readiness"
    STARTUP = "startup"
    PRESTOP = "prestop"


PROBES = (Kind.LIVENESS, Kind.READINESS, Kind.STARTUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpGet:
    """An answer below 400 is good. `host` is empty for the pod's own address."""

    port: int
    path: str = "/"
    tls: bool = False
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSocket:
    """A connection is good."""

    port: int
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grpc:
    """`SERVING` of grpc.health.v1 is good; the empty service is the whole server."""

    port: int
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """A command in the container; exit code 0 is good."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Of hooks only."""

    seconds: int


Action = HttpGet | TcpSocket | Grpc | Exec | Sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A probe or hook.

    `action` is None for a hook that is ours alone. `startup` is how long the container's startup
    probe lets it load; 0 where it has none. `grace` is the pod's own termination grace period;
    None where it is not known. `seal`: it is to be sealed before it goes. Both are of hooks only,
    which have no other times.
    """

    kind: Kind
    action: Action | None = None
    delay: int = 0
    period: int = 10
    timeout: int = 1
    failures: int = 3
    startup: int = 0
    grace: int | None = None
    seal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an action. `say` is for people, as the kubelet would put it."""

    passed: bool
    say: str = ""
