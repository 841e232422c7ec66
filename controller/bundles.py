"""
A set of policy files into the bundle that OPA loads, or every reason why not.

Called by `publication`. What is tried, in this order: paths, data (JSON, and its schema), Rego
(`opa check --strict`, typed by the schemas), the bundle, one ordinary question to each package.
Rule: verdicts are functions of their question. Builtins that ask the network, the clock, chance or
the environment are not there, which is also why a verdict may be remembered.
"""

import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import orjson
from referencing import Registry
from referencing.exceptions import Unresolvable

from controller import bundle_questions
from controller.bundle_questions import QUESTIONS
from kybernate.api import policy_files
from kybernate.api.errors import Malformed
from kybernate.model.ids import Revision

TIMEOUT_S = 30.0  # a check takes a fraction of a second; this is for a machine that swaps
FORBIDDEN = frozenset(
    {
        "http.send",
        "net.lookup_ip_addr",
        "opa.runtime",
        "rand.intn",
        "time.now_ns",
        "uuid.rfc4122",
    }
)
_CHECK_ERRORS = 50  # instead of OPA's 10: every reason is named
_SHOWN = 400  # characters of a reason
_REASONS = 20  # of a refusal; they end up in an event of 1,024 bytes and in a log line


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What OPA fetches: a .tar.gz, and the revision it says in its manifest."""

    revision: Revision
    content: bytes


class BundleRefused(Exception):
    """These policies are not published, until somebody changes them. `reasons` is never empty."""

    def __init__(self, revision: Revision, reasons: Iterable[str]) -> None:
        self.revision = revision
        self.reasons = tuple(dict.fromkeys(reason[:_SHOWN] for reason in reasons))[:_REASONS]
        super().__init__(f"policies {revision} are refused: " + "; ".join(self.reasons))


class OpaUnusable(Exception):
    """The `opa` program does not run here, or not in time: trying again may help."""


def build(files: Mapping[str, str], opa: Path) -> Bundle:
    """The bundle of `files` (path to text), checked by the program `opa`.

    Raises BundleRefused with every reason that can be told, OpaUnusable.
    """
    revision = policy_files.revision_of(files)
    with tempfile.TemporaryDirectory(prefix="kyb-bundle-") as folder:
        work = _Work(Path(folder), opa)
        for reasons in _attempts(work, files, revision):
            if reasons:
                raise BundleRefused(revision, reasons)
        return Bundle(revision=revision, content=work.bundle.read_bytes())


def _attempts(work: "_Work", files: Mapping[str, str], revision: Revision) -> Iterator[list[str]]:
    """The reasons of one attempt after the other; a later one stands on those before."""
    yield _path_faults(files)
    work.write(files, revision)
    yield [*_data_faults(files), *work.rego_faults()]
    yield work.bundle_faults(revision)
    yield work.verdict_faults()


def _path_faults(files: Mapping[str, str]) -> list[str]:
    try:
        policy_files.to_keys(files)
    except Malformed as problem:
        return [str(fault) for fault in problem.faults]
    return []


def _data_faults(files: Mapping[str, str]) -> list[str]:
    schemas = {path: _json(text) for path, text in files.items() if policy_files.is_schema(path)}
    faults = [f"{path}: not JSON" for path, schema in schemas.items() if schema is None]
    for path, text in sorted(files.items()):
        name = policy_files.data_name(path)
        if name is not None:
            schema = schemas.get(f"schemas/settings/{name}.json") or {}
            faults += [f"{path}: {fault}" for fault in _value_faults(text, schema)]
    return faults


def _value_faults(text: str, schema: Mapping[str, Any]) -> list[str]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        return [f"not JSON: {problem}"]
    if not isinstance(value, dict):
        return ["not an object"]
    try:
        jsonschema.Draft7Validator.check_schema(schema)
        # A registry of its own, so that no reference in a schema is ever fetched.
        found = jsonschema.Draft7Validator(schema, registry=Registry()).iter_errors(value)
        return [f"{error.json_path}: {error.message}" for error in found]
    except (jsonschema.SchemaError, Unresolvable) as problem:
        return [f"its schema cannot be used: {str(problem).splitlines()[0]}"]


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


class _Work:
    """A folder with the policies laid out as OPA wants them, and the program that reads them."""

    def __init__(self, folder: Path, opa: Path) -> None:
        self._folder = folder
        self._opa = opa
        self._policies = folder / "policies"
        self._schemas = folder / "schemas"
        self._capabilities = folder / "capabilities.json"
        self.bundle = folder / "kyb.tar.gz"

    def write(self, files: Mapping[str, str], revision: Revision) -> None:
        """Lay it all out. `data/x.json` becomes the document `data.kyb.settings.x`."""
        manifest = {"revision": revision, "roots": ["kyb"], "rego_version": 1}
        _put(self._policies / ".manifest", orjson.dumps(manifest))
        _put(self._capabilities, _capabilities(self._opa))
        for package, question in QUESTIONS.items():
            _put(self._question(package), orjson.dumps(question))
        self._schemas.mkdir()
        for path, text in files.items():
            _put(self._place(path), text.encode())

    def _place(self, path: str) -> Path:
        name = policy_files.data_name(path)
        if name is not None:
            return self._policies / policy_files.SETTINGS / name / "data.json"
        if policy_files.is_schema(path):
            return self._schemas / path.removeprefix("schemas/")
        return self._policies / path

    def rego_faults(self) -> list[str]:
        """Syntax, types, unused and unsafe variables, forbidden builtins."""
        return self._faults(
            "check",
            "--strict",
            "--format=json",
            f"--max-errors={_CHECK_ERRORS}",
            f"--capabilities={self._capabilities}",
            f"--schema={self._schemas}",
            str(self._policies / "kyb"),
        )

    def bundle_faults(self, revision: Revision) -> list[str]:
        """Write the bundle itself."""
        entrypoints = [f"--entrypoint={one}" for one in policy_files.ENTRYPOINTS]
        return self._build(f"--revision={revision}", *entrypoints)

    def verdict_faults(self) -> list[str]:
        """Ask the bundle what it must be able to answer."""
        return [fault for package in QUESTIONS for fault in self._verdict_faults(package)]

    def _verdict_faults(self, package: str) -> list[str]:
        # A run each: OPA 1.22 answers wrongly where a comprehension has `with input as input.x`.
        done = self._run(
            "eval",
            f"--bundle={self.bundle}",
            f"--input={self._question(package)}",
            "--format=json",
            f"data.kyb.{package}.verdict",
        )
        said = _json(done.stdout)
        if done.returncode or not isinstance(said, dict):
            return _errors(done.stdout) or [done.stderr or f"kyb.{package} cannot be asked"]
        answers = [one["expressions"][0]["value"] for one in said.get("result", ())]
        missing = [] if answers else self._entrypoint_faults(package)
        return missing or bundle_questions.faults(package, answers)

    def _entrypoint_faults(self, package: str) -> list[str]:
        """Only the planner of `opa build` minds that an entrypoint is missing."""
        return self._build("--target=plan", f"--entrypoint=kyb/{package}/verdict")

    def _question(self, package: str) -> Path:
        return self._folder / f"{package}.question.json"

    def _build(self, *arguments: str) -> list[str]:
        return self._faults(
            "build",
            *arguments,
            f"--capabilities={self._capabilities}",
            f"--output={self.bundle}",
            "--bundle",
            str(self._policies),
        )

    def _faults(self, *arguments: str) -> list[str]:
        done = self._run(*arguments)
        if done.returncode == 0:
            return []
        said = _errors(done.stderr) or _errors(done.stdout) or [done.stderr or done.stdout]
        return [self._shorten(reason) for reason in said]

    def _shorten(self, reason: str) -> str:
        text = " ".join(reason.split()).removeprefix("error: ")
        return text.replace(f"{self._policies}/", "").replace(f"{self._folder}/", "")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _run(self._opa, *arguments)


def _errors(said: str) -> list[str]:
    """OPA's errors as `file:line: message`, where it says them as JSON."""
    value = _json(said)
    errors = value.get("errors") if isinstance(value, dict) else None
    if not isinstance(errors, list):
        return []
    return [_error(error) for error in errors]


def _error(error: Mapping[str, Any]) -> str:
    location = error.get("location") or {}
    place = f"{location.get('file')}:{location.get('row')}: " if location else ""
    return f"{place}{error.get('message')}"


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@lru_cache(maxsize=4)
def _capabilities(opa: Path) -> bytes:
    """What this OPA can do, without what verdicts must not depend on."""
    done = _run(opa, "capabilities", "--current")
    value = _json(done.stdout)
    if done.returncode or not isinstance(value, dict):
        raise OpaUnusable(f"{opa} does not say what it can do: {done.stderr[:_SHOWN]}")
    value["builtins"] = [one for one in value["builtins"] if one["name"] not in FORBIDDEN]
    value["allow_net"] = []
    return orjson.dumps(value)


def _run(opa: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [str(opa), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OpaUnusable(f"{opa} {arguments[0]}: {error}") from error
