"""
Probes of the seat container, turned into ones that are answered for it while it has no GPU.

Pure; `additions` is called by `defaulting`, `faults` by `validation`. The kubelet cannot ask a
process that is stopped, so it asks `kybernate-runc`, which asks the agent; what the probe was
travels in its command (docs/reference/probes.md). Rule: periods, thresholds and the termination
grace period stay the kubelet's; the timeout is the agent's to keep, and the kubelet gets more.
Rule: a probe that is ours already comes out the same. A named port that the container does not have
is let be: the kubelet never asks it either.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kybernate.api import probes
from kybernate.api.errors import Fault, Faults, Malformed
from kybernate.model.probing import Action, Asked, Kind
from webhook import seats
from webhook.wire import Addition

FIELDS: Mapping[str, Kind] = {
    "livenessProbe": Kind.LIVENESS,
    "readinessProbe": Kind.READINESS,
    "startupProbe": Kind.STARTUP,
}
_OWN = f"a command of the pod's own; {probes.MARKER} is written by the webhook alone"
_REWRITTEN = f"a {probes.MARKER} command, which the mutating webhook makes of it"
TOO_LONG = f"at most {probes.LONGEST} bytes in all, with its headers"
_WORDS = 3  # the marker, the kind, what it was
_MOST = 2**31  # as the API server allows


def additions(pod: Mapping[str, Any]) -> Iterator[Addition]:
    """What replaces the seat container's probes."""
    for place, container in seats.holders(pod):
        for field in FIELDS:
            made = _made(container, field)
            if made is not None and made != container[field]:
                yield Addition((*place, field), made)


def faults(pod: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with them once they are rewritten."""
    for place, container in seats.holders(pod):
        for field in FIELDS:
            path = f"spec.containers[{place[-1]}].{field}"
            yield from command_faults(container.get(field), FIELDS[field], path)
            asked = _asked(container, field)
            if asked is not None and too_long(asked):
                yield Fault(path, container[field], TOO_LONG)
            made = _made(container, field)
            if made is not None and made != container[field]:
                yield Fault(path, container[field], _REWRITTEN)


def command_faults(given: object, kind: Kind, path: str) -> Iterator[Fault]:
    """What is wrong with the marker command of a probe or hook."""
    command = _command(given)
    if probes.is_marked(command) and _own(command, kind) is None:
        yield Fault(f"{path}.exec.command", command, _OWN)


def original(given: object, kind: Kind, ports: object) -> Asked | Action | None:
    """What a probe or hook was, with its times where it is ours already; None: it stays."""
    command = _command(given)
    if probes.is_marked(command):
        return _own(command, kind)
    found = Faults()
    listed = ports if isinstance(ports, list) else ()
    action = probes.read_action(given, listed, found) if isinstance(given, dict) else None
    return None if found else action


def too_long(asked: Asked) -> bool:
    """Whether it cannot travel."""
    return len(probes.write_spec(asked)) > probes.LONGEST


def _made(container: Mapping[str, Any], field: str) -> dict[str, Any] | None:
    """The probe as it is to be; None for one that stays as it is."""
    asked = _asked(container, field)
    if asked is None or too_long(asked):
        return None
    given = container[field]
    kept = {name: value for name, value in given.items() if name not in probes.ACTIONS}
    command = probes.write_command(asked)
    return {**kept, "exec": {"command": command}, "timeoutSeconds": asked.timeout + probes.BEYOND}


def _asked(container: Mapping[str, Any], field: str) -> Asked | None:
    given, kind = container.get(field), FIELDS[field]
    was = original(given, kind, container.get("ports"))
    if was is None or not isinstance(given, dict):
        return None
    return Asked(
        kind=kind,
        action=was.action if isinstance(was, Asked) else was,
        delay=_whole(given, "initialDelaySeconds", 0),
        period=_whole(given, "periodSeconds", 10),
        timeout=was.timeout if isinstance(was, Asked) else _whole(given, "timeoutSeconds", 1),
        failures=_whole(given, "failureThreshold", 3),
        startup=_startup(container.get("startupProbe")) if kind is not Kind.STARTUP else 0,
    )


def _startup(probe: object) -> int:
    """Seconds that a startup probe lets the container load."""
    if not isinstance(probe, dict):
        return 0
    tries = _whole(probe, "failureThreshold", 3) * _whole(probe, "periodSeconds", 10)
    return min(_whole(probe, "initialDelaySeconds", 0) + tries, _MOST - 1)


def _command(given: object) -> object:
    part = given.get("exec") if isinstance(given, dict) else None
    return part.get("command") if isinstance(part, dict) else None


def _own(command: Any, kind: Kind) -> Asked | None:
    """What one of our commands stands for; None for somebody else's that looks like it."""
    if not all(isinstance(word, str) for word in command) or len(command) < _WORDS:
        return None
    try:
        asked = probes.read_command(command)
    except Malformed:
        return None
    return asked if asked.kind is kind else None


def _whole(given: Mapping[str, Any], name: str, default: int) -> int:
    value = given.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return default
    return value if 0 <= value < _MOST - probes.BEYOND else default
