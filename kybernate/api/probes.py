"""
Probes and hooks as `kyb-probe` commands and back: `kyb-probe liveness {...} -- cat /healthy`.

Called by: the webhook, which writes them into pods; the agent, which reads what `kybernate-runc`
passes on. docs/reference/probes.md has the form. Rule: what was asked for travels whole, headers
included, and nothing beside it. Rule: a user's own command stands after `--` as it came.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from kybernate.api.errors import Faults
from kybernate.model.probing import (
    PROBES,
    Action,
    Asked,
    Exec,
    Grpc,
    HttpGet,
    Kind,
    Sleep,
    TcpSocket,
)

MARKER = "kyb-probe"
BEHIND = "--"
LONGEST = 4096  # characters of what travels; a line of the runtime's protocol has 16 KiB
# The kubelet's patience beyond the user's own timeout, which the agent keeps: an exec of a busy
# node's container runtime takes a while before anybody asks anything.
BEYOND = 30
ACTIONS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")

_PORTS = range(1, 65536)
_NUMBERS = ("delay", "period", "timeout", "failures", "startup")
_MOST = 2**31  # as the API server allows


def is_marked(command: object) -> bool:
    """Whether a command, or what stands for one, begins with our marker."""
    return isinstance(command, list) and command[:1] == [MARKER]


def write_command(asked: Asked) -> list[str]:
    """The command."""
    own = [BEHIND, *asked.action.command] if isinstance(asked.action, Exec) else []
    return [MARKER, asked.kind.value, write_spec(asked), *own]


def read_command(command: Sequence[str]) -> Asked:
    """What it stands for. Raises Malformed."""
    faults = Faults()
    kind = _kind(command[1] if len(command) > 1 else None, faults)
    own = tuple(command[4:]) if command[3:4] == [BEHIND] else ()
    if command[:1] != [MARKER] or (len(command) > 3 and not own) or own[:1] == (MARKER,):
        faults.add(
            "command", list(command), f"{MARKER}, a kind, what it was, and a command or none"
        )
    faults.check()
    return read_spec(
        kind, command[2] if len(command) > 2 else "", Exec(command=own) if own else None
    )


def write_spec(asked: Asked) -> str:
    """What travels beside the kind and the user's own command."""
    body = _action(asked.action)
    if asked.kind in PROBES:
        body |= {name: getattr(asked, name) for name in _NUMBERS if name != "startup"}
        body |= {"startup": asked.startup} if asked.startup else {}
    else:
        body |= {} if asked.grace is None else {"grace": asked.grace}
        body |= {"seal": True} if asked.seal else {}
    return orjson.dumps(body).decode()


def read_spec(kind: Kind, text: str, own: Exec | None = None) -> Asked:
    """The probe or hook; `own` is the user's command. Raises Malformed with all faults."""
    faults = Faults()
    body = _object(text, faults) if text else {}
    asked = Asked(kind=kind)
    known = {*ACTIONS[1:], *_NUMBERS, "grace", "seal"}
    for name in sorted(body.keys() - known):
        faults.add(name, body[name], "one of " + ", ".join(sorted(known)))
    numbers = {
        name: _number(body, name, getattr(asked, name), faults) for name in _NUMBERS if name in body
    }
    grace = _number(body, "grace", 0, faults) if "grace" in body else None
    action = own or read_action(body, (), faults)
    faults.check()
    return Asked(kind=kind, action=action, grace=grace, seal=body.get("seal") is True, **numbers)


def read_action(
    given: Mapping[str, Any], ports: Iterable[Mapping[str, Any]], faults: Faults
) -> Action | None:
    """The action of a probe or hook of a pod, with the container's `ports` for named ones."""
    for name in ACTIONS:
        part = given.get(name)
        if isinstance(part, dict):
            return _READERS[name](part, tuple(ports), faults)
    return None


def _kind(value: object, faults: Faults) -> Kind:
    try:
        return Kind(str(value))
    except ValueError:
        faults.add("kind", value, "one of " + ", ".join(Kind))
        return Kind.LIVENESS


def _object(text: str, faults: Faults) -> Mapping[str, Any]:
    try:
        body = orjson.loads(text)
    except ValueError as error:
        faults.add("spec", text, f"a JSON object; {error}")
        return {}
    if not isinstance(body, dict):
        faults.add("spec", body, "a JSON object")
        return {}
    return body


def _number(body: Mapping[str, Any], name: str, default: int, faults: Faults) -> int:
    value = body.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST:
        return value
    faults.add(name, value, "a whole number of seconds")
    return default


def _action(action: Action | None) -> dict[str, Any]:
    match action:
        case HttpGet():
            given = {"port": action.port, "path": action.path, "host": action.host}
            headers = [{"name": name, "value": value} for name, value in action.headers]
            more = {"scheme": "HTTPS" if action.tls else "", "httpHeaders": headers}
            return {"httpGet": {k: v for k, v in {**given, **more}.items() if v}}
        case TcpSocket():
            return {
                "tcpSocket": {"port": action.port} | ({"host": action.host} if action.host else {})
            }
        case Grpc():
            service = {"service": action.service} if action.service else {}
            return {"grpc": {"port": action.port} | service}
        case Sleep():
            return {"sleep": {"seconds": action.seconds}}
    return {}


def _exec(part: Mapping[str, Any], _: tuple[Any, ...], faults: Faults) -> Exec:
    command = part.get("command")
    fine = isinstance(command, list) and all(isinstance(one, str) for one in command)
    if not fine or not command:
        faults.add("exec.command", command, "a command")
        return Exec(command=())
    return Exec(command=tuple(command))


def _http(part: Mapping[str, Any], ports: tuple[Any, ...], faults: Faults) -> HttpGet:
    scheme = _text(part, "httpGet", "scheme", faults).upper()
    if scheme not in ("", "HTTP", "HTTPS"):
        faults.add("httpGet.scheme", scheme, "HTTP or HTTPS")
    return HttpGet(
        port=_port(part, "httpGet", ports, faults),
        path=_text(part, "httpGet", "path", faults) or "/",
        tls=scheme == "HTTPS",
        host=_text(part, "httpGet", "host", faults),
        headers=_headers(part.get("httpHeaders"), faults),
    )


def _tcp(part: Mapping[str, Any], ports: tuple[Any, ...], faults: Faults) -> TcpSocket:
    port, host = _port(part, "tcpSocket", ports, faults), _text(part, "tcpSocket", "host", faults)
    return TcpSocket(port=port, host=host)


def _grpc(part: Mapping[str, Any], ports: tuple[Any, ...], faults: Faults) -> Grpc:
    port, service = _port(part, "grpc", ports, faults), _text(part, "grpc", "service", faults)
    return Grpc(port=port, service=service)


def _sleep(part: Mapping[str, Any], _: tuple[Any, ...], faults: Faults) -> Sleep:
    return Sleep(seconds=_number(part, "seconds", 0, faults))


def _text(part: Mapping[str, Any], where: str, name: str, faults: Faults) -> str:
    value = part.get(name) or ""
    if isinstance(value, str):
        return value
    faults.add(f"{where}.{name}", value, "a text")
    return ""


def _headers(value: object, faults: Faults) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for one in value if isinstance(value, list) else ():
        pair = (one.get("name"), one.get("value") or "") if isinstance(one, dict) else (None, None)
        if not isinstance(pair[0], str) or not isinstance(pair[1], str):
            faults.add("httpGet.httpHeaders", one, "a name and a value")
        else:
            found.append((pair[0], pair[1]))
    return tuple(found)


def _port(part: Mapping[str, Any], where: str, ports: tuple[Any, ...], faults: Faults) -> int:
    """A number, or the name of one of the container's ports; a text of digits is a number, too."""
    value = part.get("port")
    if isinstance(value, str):
        named = [one.get("containerPort") for one in ports if isinstance(one, dict)
                 and one.get("name") == value]  # fmt: skip
        value = (
            named[0] if named else int(value) if value.isascii() and value.isdecimal() else value
        )
    if isinstance(value, int) and value in _PORTS:
        return value
    faults.add(f"{where}.port", part.get("port"), "a port, or the name of one of the container's")
    return 0


_Reader = Callable[[Mapping[str, Any], tuple[Any, ...], Faults], Action]
_READERS: Mapping[str, _Reader] = {
    "exec": _exec,
    "httpGet": _http,
    "tcpSocket": _tcp,
    "grpc": _grpc,
    "sleep": _sleep,
}
