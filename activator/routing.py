"""
Which model a request means: by its host, its path, or the OpenAI `model` field of its body. Pure.

Called by: `desk`. Rule: the first that says something counts, in this order, so that a request goes
where its URL says also when its body says otherwise: host, path, body. Rule: what names no model is
refused; there is no default, so nothing is ever answered by a model that was not asked.
"""

from dataclasses import dataclass
from urllib.parse import unquote

import orjson

PATH = b"/models/"


@dataclass(frozen=True, slots=True)
class Meant:
    """The model's name, and the target to send it: the path without our part."""

    name: str
    target: bytes


@dataclass(frozen=True, slots=True)
class Nothing:
    """It names no model, and why that is."""

    why: str


class Routing:
    """With a suffix of host names, or none."""

    def __init__(self, host_suffix: str = "") -> None:
        self._suffix = f".{host_suffix.strip('.').lower()}".encode() if host_suffix else b""

    def meant(self, target: bytes, host: bytes, body: bytes) -> Meant | Nothing:
        """Of a request's target, its Host and its whole body."""
        name = self._of_host(host) if self._suffix else ""
        if name:
            return Meant(name, target)
        if target.startswith(PATH):
            return _of_path(target)
        return _of_body(target, body)

    def _of_host(self, host: bytes) -> str:
        bare = host.partition(b":")[0].lower()
        if not bare.endswith(self._suffix):
            return ""
        name, _, namespace = bare.removesuffix(self._suffix).decode("latin-1").partition(".")
        return f"{namespace}/{name}" if namespace else name


def _of_path(target: bytes) -> Meant | Nothing:
    path, mark, query = target.partition(b"?")
    encoded, _, rest = path.removeprefix(PATH).partition(b"/")
    name = unquote(encoded.decode("latin-1"))
    if not name:
        return Nothing("the path names no model: /models/NAME/... is expected")
    return Meant(name, b"/" + rest + mark + query)


def _of_body(target: bytes, body: bytes) -> Meant | Nothing:
    if not body:
        return Nothing("neither host, path (/models/NAME/...) nor a JSON body names a model")
    try:
        document = orjson.loads(body)
    except ValueError:
        return Nothing("the body is not JSON, so its field `model` names no model")
    name = document.get("model") if isinstance(document, dict) else None
    if not isinstance(name, str) or not name:
        return Nothing("the field `model` of the body is not the name of a model")
    return Meant(name, target)
