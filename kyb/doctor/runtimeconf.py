"""
/etc/kyb/runtime.conf, read as kybernate-runc reads it: native/runtime/settings.c.

Called by: `node`, `kyb.nodefiles`.
Rule: a file that is not there is the defaults; every fault is told at once.
"""

from kyb.doctor.facts import RuntimeConf

PATH = "/etc/kyb/runtime.conf"
VARIABLE = "KYB_RUNTIME_CONF"
AGENT_WAIT_S = 60.0
LONGEST_WAIT_S = 100.0
_PATHS = ("runc", "socket")


def read(text: str, path: str = PATH) -> RuntimeConf:
    """Its content; an empty text for a file that is not there."""
    wait, faults = AGENT_WAIT_S, []
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.strip().startswith("#"):
            continue
        if not equals:
            faults.append(f"line {number}: {line.strip()!r} is not name = value")
        elif name == "agent-wait":
            seconds = _seconds(value)
            wait = wait if seconds is None else seconds
            if seconds is None:
                faults.append(f"agent-wait: {value!r} is not seconds from 0 to {LONGEST_WAIT_S:g}")
        elif name not in _PATHS:
            faults.append(f"{name!r} is not known: runc, socket, agent-wait are")
        elif not value.startswith("/"):
            faults.append(f"{name}: {value!r} is not an absolute path")
    return RuntimeConf(path=path, agent_wait=wait, faults=tuple(faults))


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
