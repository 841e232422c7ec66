"""
/etc/kyb/runtime.conf, read as kybernate-runc reads it: native/runtime/settings.c.

Called by: `node`, `kyb.nodefiles`.
Rule: a file that is not there is the defaults; every fault is told at once.
"""

from collections.abc import Mapping

from kyb.doctor.facts import RuntimeConf

PATH = "/etc/kyb/runtime.conf"
VARIABLE = "KYB_RUNTIME_CONF"
AGENT_WAIT, WAKE_WAIT = "agent-wait", "wake-wait"
AGENT_WAIT_S, WAKE_WAIT_S = 60.0, 90.0
LONGEST_WAIT_S = 100.0
_PATHS = ("runc", "socket")


def read(text: str, path: str = PATH) -> RuntimeConf:
    """Its content; an empty text for a file that is not there."""
    waits, faults = {AGENT_WAIT: AGENT_WAIT_S, WAKE_WAIT: WAKE_WAIT_S}, []
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.strip().startswith("#"):
            continue
        if not equals:
            faults.append(f"line {number}: {line.strip()!r} is not name = value")
        elif name in waits:
            seconds = _seconds(value)
            waits[name] = waits[name] if seconds is None else seconds
            if seconds is None:
                faults.append(f"{name}: {value!r} is not seconds from 0 to {LONGEST_WAIT_S:g}")
        elif name not in _PATHS:
            known = ", ".join((*_PATHS, *waits))
            faults.append(f"{name!r} is not known: {known} are")
        elif not value.startswith("/"):
            faults.append(f"{name}: {value!r} is not an absolute path")
    return RuntimeConf(
        path=path, agent_wait=waits[AGENT_WAIT], wake_wait=waits[WAKE_WAIT], faults=tuple(faults)
    )


def waits(conf: RuntimeConf) -> Mapping[str, float]:
    """By name, in seconds: how long `create` may wait for something."""
    return {AGENT_WAIT: conf.agent_wait, WAKE_WAIT: conf.wake_wait}


def fitting(request_timeout: float) -> Mapping[str, float]:
    """The usual ones, or a part of the kubelet's patience where that is shorter. In what
    `wake-wait` leaves of it a container is restored."""
    usual = AGENT_WAIT_S if request_timeout > AGENT_WAIT_S else request_timeout / 2
    return {AGENT_WAIT: usual, WAKE_WAIT: min(WAKE_WAIT_S, request_timeout * 3 / 4)}


def value_of(text: str, wanted: str) -> str:
    """The value a name has in it; empty where it has none."""
    found = ""
    for line in text.splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        found = value if name == wanted else found
    return found


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= LONGEST_WAIT_S else None
