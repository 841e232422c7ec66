"""
A set of policies as texts by path, and as keys of the ConfigMap `kyb-policies`. Pure.

Called by: the controller, which makes a bundle of them, and whoever writes the ConfigMap.
Paths: `kyb/<package>/<name>.rego`, `data/<name>.json` (seen by Rego as `data.kyb.settings.<name>`),
`schemas/<package>.json` (of inputs), `schemas/settings/<name>.json` (of data).
Rule: a path is untrusted; one that is not of these forms is refused, so none leads elsewhere.
"""

import hashlib
import re
from collections.abc import Mapping

from kybernate.api.errors import Fault, Malformed
from kybernate.model.ids import Revision

ENTRYPOINTS = (
    "kyb/admission/verdict",
    "kyb/placement/verdict",
    "kyb/preemption/verdict",
    "kyb/retention/verdict",
    "kyb/sharing/verdict",
    "kyb/tiering/verdict",
    "kyb/timeslice/verdict",
)
SETTINGS = "kyb/settings"  # where OPA finds the data files

_SLASH = "__"  # keys of a ConfigMap have no slash
_WORD = r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*"
_REGO = re.compile(rf"kyb/(?:{_WORD}/)+{_WORD}\.rego")
_DATA = re.compile(rf"data/(?P<name>{_WORD})\.json")
_SCHEMA = re.compile(rf"schemas/(?:settings/)?{_WORD}\.json")
_EXPECTED = "kyb/<package>/<name>.rego, data/<name>.json or schemas/<name>.json"


def to_keys(files: Mapping[str, str]) -> dict[str, str]:
    """The members of the ConfigMap. Raises Malformed for paths that cannot be keys."""
    _check(files)
    return {path.replace("/", _SLASH): text for path, text in files.items()}


def from_keys(members: Mapping[str, str]) -> dict[str, str]:
    """Texts by path. Raises Malformed with every key that is not a policy's."""
    files = {key.replace(_SLASH, "/"): text for key, text in members.items()}
    _check(files)
    return files


def revision_of(files: Mapping[str, str]) -> Revision:
    """`sha256:` and 12 hex digits over policies and data; schemas only check, so they count not."""
    digest = hashlib.sha256()
    for path in sorted(files):
        if not is_schema(path):
            for part in (path, files[path]):
                encoded = part.encode()
                digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return Revision(f"sha256:{digest.hexdigest()[:12]}")


def is_rego(path: str) -> bool:
    """Whether it is a policy."""
    return _REGO.fullmatch(path) is not None


def is_schema(path: str) -> bool:
    """Whether it is the schema of an input or of a data file."""
    return _SCHEMA.fullmatch(path) is not None


def data_name(path: str) -> str | None:
    """`classes` for `data/classes.json`; None for what is no data file."""
    match = _DATA.fullmatch(path)
    return match["name"] if match else None


def _check(files: Mapping[str, str]) -> None:
    odd = [path for path in files if not (is_rego(path) or is_schema(path) or data_name(path))]
    if odd:
        raise Malformed(Fault("path", path, _EXPECTED) for path in sorted(odd))
