"""
What is said between whoever creates containers and the node agent, and the caller's side of it.

Called by: the agent (`nodeagent.api.runtime_socket`), the light node, tests. `native/runtime` says
the same in C; docs/reference/runtime.md has the protocol for both.
Rule: one connection carries one request line and one reply line, each a JSON object of strings.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import orjson

from kybernate.api.errors import Faults
from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import PodUid, WorkloadKey

LONGEST = 16 * 1024  # bytes of a line: names and paths of at most 4096 each, with room
SOCKET = "runtime.sock"  # beside the agent's own socket
UNTOLD = "untold"  # the folder beside it with requests for an agent that was away
_LARGEST_NUMBER = 2**63


class Op(StrEnum):
    """What is asked."""

    ARRIVING = "arriving"  # a sandbox of a pod that is to wake is about to be made
    CREATING = "creating"  # may it be made, and how; waits for nothing but the agent
    HELD = "held"  # it is made, and its first process waits at the exec FIFO
    ENDED = "ended"
    STATE = "state"  # whether it has its GPU, or is held or parked
    PROBE = "probe"  # what a probe or hook of the pod comes to: docs/reference/probes.md


class NotHeard(Retry):
    """The agent is away, or cannot take it in now: say it again later."""


class NotTaken(Refused):
    """The agent understood and refuses; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `pid`, `fifo` and `started` come with HELD only."""

    op: Op
    pod: WorkloadKey
    uid: PodUid
    container_id: str
    container: str = ""  # comes with CREATING and HELD
    pid: int = 0  # as the caller numbers processes
    started: int = 0  # clock ticks from boot to its start; 0: look it up
    fifo: Path | None = None
    bundle: Path | None = None  # with CREATING, from what has bundles
    restored: bool = False  # with HELD: from a checkpoint; it is stopped, and never was at the FIFO
    failed: str = ""  # with ENDED: why the checkpoint that CREATING was answered with did not do
    kind: str = ""  # with PROBE, as the next two: of probe or hook
    spec: str = ""  # what it was, as `kybernate.api.probes` writes it; empty: only its own command
    ended: str = ""  # how its own command ended, like `exit 1`; empty before it was run


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The answer to STATE."""

    held: bool  # alive without being asked: it waits or is parked
    state: str  # a word of `kybernate.model.workload.State`
    say: str = ""  # for people, where it is held


def beside(agent_socket: Path) -> Path:
    """The runtime's socket of the agent with this socket."""
    return agent_socket.with_name(SOCKET)


def encode(call: Call) -> bytes:
    """Its line."""
    body = {
        "op": call.op.value,
        "namespace": call.pod.namespace,
        "pod": call.pod.name,
        "uid": call.uid,
        "id": call.container_id,
    }
    if call.container:
        body["container"] = call.container
    if call.op is Op.HELD:
        body |= {"pid": str(call.pid), "fifo": str(call.fifo)}
        body |= {"started": str(call.started)} if call.started else {}
        body |= {"restored": "yes"} if call.restored else {}
    if call.op is Op.PROBE:
        body |= {"kind": call.kind, "spec": call.spec, "ended": call.ended}
    if call.bundle:
        body["bundle"] = str(call.bundle)
    if call.failed:
        body["failed"] = call.failed
    return orjson.dumps(body) + b"\n"


def decode(line: bytes) -> Call:
    """The request in a line. Raises Malformed with all its faults; unknown fields are let be."""
    faults = Faults()
    body = _object(line, faults)
    op = _op(body, faults)
    held, probe = op is Op.HELD, op is Op.PROBE
    call = Call(
        op=op,
        pod=WorkloadKey(_text(body, "namespace", faults), _text(body, "pod", faults)),
        uid=PodUid(_text(body, "uid", faults)),
        container_id=_text(body, "id", faults),
        container=_text(body, "container", faults) if held or op is Op.CREATING else "",
        pid=_number(body, "pid", faults) if held else 0,
        started=_number(body, "started", faults) if held and "started" in body else 0,
        fifo=_path(body, "fifo", faults) if held else None,
        bundle=_path(body, "bundle", faults) if "bundle" in body else None,
        restored=held and body.get("restored") == "yes",
        failed=_words(body, "failed", faults),
        kind=_text(body, "kind", faults) if probe else "",
        spec=_words(body, "spec", faults) if probe else "",
        ended=_words(body, "ended", faults) if probe else "",
    )
    faults.check()
    return call


def reply(**fields: str) -> bytes:
    """A reply's line."""
    return orjson.dumps(fields) + b"\n"


class RuntimeCaller:
    """The socket, called once a request."""

    def __init__(self, path: Path, limit: float = 2.0) -> None:
        """Nothing is asked yet. `limit` seconds for each call."""
        self._path, self._limit = path, limit

    def tell(self, call: Call) -> None:
        """Say it; heard when it returns. Raises NotHeard, NotTaken."""
        self._ask(call)

    def standing(self, call: Call) -> Standing:
        """How a container stands. Raises NotHeard, NotTaken."""
        said = self._ask(call)
        return Standing(
            held=said.get("held") == "yes", state=said.get("state", ""), say=said.get("say", "")
        )

    def _ask(self, call: Call) -> Mapping[str, str]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                line.settimeout(self._limit)
                line.connect(str(self._path))
                line.sendall(encode(call))
                answer = line.makefile("rb").readline(LONGEST)
        except OSError as error:
            raise NotHeard(f"{self._path}: {error}") from error
        return _taken(answer)


def _taken(answer: bytes) -> Mapping[str, str]:
    try:
        said = orjson.loads(answer)
    except ValueError as error:
        raise NotHeard("the agent broke off") from error
    if isinstance(said, dict) and "ok" in said:
        return said
    why = str(said.get("error")) if isinstance(said, dict) else "an answer of another kind"
    if isinstance(said, dict) and said.get("again") == "yes":
        raise NotHeard(why)
    raise NotTaken(why)


def _object(line: bytes, faults: Faults) -> Mapping[str, object]:
    try:
        body = orjson.loads(line)
    except ValueError as error:
        faults.add("request", line, f"a JSON object in one line; {error}")
        return {}
    if not isinstance(body, dict):
        faults.add("request", body, "a JSON object")
        return {}
    return body


def _op(body: Mapping[str, object], faults: Faults) -> Op:
    known = ", ".join(op.value for op in Op)
    value = body.get("op")
    if isinstance(value, str) and value in set(Op):
        return Op(value)
    faults.add("op", value, f"one of {known}")
    return Op.STATE


def _text(body: Mapping[str, object], name: str, faults: Faults) -> str:
    value = body.get(name)
    if isinstance(value, str) and value and value.isprintable() and "/" not in value:
        return value
    faults.add(name, value, "a name")
    return ""


def _words(body: Mapping[str, object], name: str, faults: Faults) -> str:
    """Any text; empty where there is none."""
    value = body.get(name, "")
    if isinstance(value, str):
        return value
    faults.add(name, value, "a text")
    return ""


def _number(body: Mapping[str, object], name: str, faults: Faults) -> int:
    value = body.get(name)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        number = int(value)
        if 0 < number < _LARGEST_NUMBER:
            return number
    faults.add(name, value, "a positive whole number in a string")
    return 0


def _path(body: Mapping[str, object], name: str, faults: Faults) -> Path:
    value = body.get(name)
    if isinstance(value, str) and value.startswith("/") and "\0" not in value:
        return Path(value)
    faults.add(name, value, "an absolute path")
    return Path("/")
