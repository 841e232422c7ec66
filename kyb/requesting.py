"""`kyb checkpoint` and `kyb restore`: make a request of the API server, and follow it if asked to.

The controller carries requests out, so these go on also when the command ends. Rule: what cannot
work is said before a request is made, where that can be known.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from kyb import reach, templates
from kyb.faults import fail, say
from kybernate.api import checkpointrequests, restorerequests
from kybernate.api.checkpointrequests import CheckpointStatus, Leave
from kybernate.api.errors import Malformed
from kybernate.api.requests import RequestState, RequestStatus
from kybernate.api.restorerequests import Owner, OwnerKind, RestoreStatus, Template
from kybernate.clients import resources
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.resources import Resource
from kybernate.model.ids import WorkloadKey

console = Console(highlight=False, soft_wrap=True)

LOOK_EVERY_S = 0.5
DONE_AFTER_S = 60.0  # beyond its own bound a request has ended, or nobody carries requests out


class Left(StrEnum):
    """What becomes of a workload that was sealed, as it is typed."""

    RUNNING = "running"
    PARKED = "parked"


Wait = Annotated[bool, typer.Option("--wait", help="Follow it to its end.")]
Within = Annotated[float, typer.Option(help="Seconds it may take; then it has failed.", min=10)]


def checkpoint(  # noqa: PLR0913 - one for each option
    name: reach.Workload,
    kubeconfig: reach.Kubeconfig = None,
    namespace: reach.Namespace = None,
    called: Annotated[str, typer.Option("--name", help="Of the checkpoint; else made up.")] = "",
    leave: Annotated[Left, typer.Option(help="What it is afterwards.")] = Left.RUNNING,
    gold: Annotated[
        bool, typer.Option("--gold", help="A gold image: many replicas may start from it.")
    ] = False,
    wait: Wait = False,
    within: Within = 900.0,
) -> None:
    """Ask for a checkpoint of a workload: a sealed copy that can wake elsewhere."""
    kube = reach.kube(kubeconfig)
    key = reach.key(kube, name, namespace)
    try:
        kube.get(resources.GPUWORKLOADS, key.name, key.namespace)
    except NotFound:
        fail(f"no workload {key}: `kyb ps` lists them")
    if gold and (held := _secrets(kube, key)):
        say(f"every replica will have in its memory what {key} read of Secrets: {', '.join(held)}")
    left = Leave.PARKED if leave is Left.PARKED else Leave.RUNNING
    wanted = checkpointrequests.new_object(key, name=called, leave=left, within=within, gold=gold)
    made = kube.create(resources.CHECKPOINTREQUESTS, wanted)
    _answer(_Request(kube, resources.CHECKPOINTREQUESTS, made, _read_checkpoint), wait, within)


def _secrets(kube: Kube, key: WorkloadKey) -> tuple[str, ...]:
    """Names of Secrets that a pod has in its environment or files."""
    try:
        spec = kube.get(resources.PODS, key.name, key.namespace)["spec"]
    except NotFound:
        return ()
    found: list[Any] = []
    for container in spec.get("containers") or ():
        each = (one.get("valueFrom") or {} for one in container.get("env") or ())
        found += [(one.get("secretKeyRef") or {}).get("name") for one in each]
        found += [
            (one.get("secretRef") or {}).get("name") for one in container.get("envFrom") or ()
        ]
    for volume in spec.get("volumes") or ():
        found.append((volume.get("secret") or {}).get("secretName"))
        sources = (volume.get("projected") or {}).get("sources") or ()
        found += [(one.get("secret") or {}).get("name") for one in sources]
    return tuple(sorted({str(name) for name in found if name}))


def restore(  # noqa: PLR0913 - one for each option
    checkpoint: Annotated[str, typer.Argument(help="The GpuCheckpoint, or NAMESPACE/NAME.")],
    kubeconfig: reach.Kubeconfig = None,
    namespace: reach.Namespace = None,
    owner: Annotated[
        str, typer.Option(help="Have this wake: deployment/NAME or statefulset/NAME.")
    ] = "",
    like: Annotated[str, typer.Option(help="Make a pod like this one.")] = "",
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Make the pod of this YAML file.")
    ] = None,
    pod: Annotated[str, typer.Option(help="Name of the pod that is made.")] = "",
    wait: Wait = False,
    within: Within = 900.0,
) -> None:
    """Ask that a checkpoint wakes: in its owner's pod, or in a pod of its own.

    Without --owner, --like and --file the owner is the one that was sealed.
    """
    kube = reach.kube(kubeconfig)
    key = reach.key(kube, checkpoint, namespace)
    try:
        sealed = kube.get(resources.GPUCHECKPOINTS, key.name, key.namespace)
    except NotFound:
        fail(f"no checkpoint {key}: `kubectl get gpucheckpoints` lists them")
    chosen = [one for one in (owner, like, str(file or "")) if one]
    if len(chosen) > 1:
        fail(f"{' and '.join(chosen)}: expected one of --owner, --like and --file")
    what = _what(kube, sealed, owner, like, file)
    if isinstance(what, Owner) and pod:
        fail(f"--pod {pod}: {what} names its pods itself (expected --like or --file)")
    if isinstance(what, Template):
        what = Template(name=pod, template=what.template)
    wanted = restorerequests.new_object(key.namespace, key.name, what, within=within)
    made = kube.create(resources.RESTOREREQUESTS, wanted)
    _answer(_Request(kube, resources.RESTOREREQUESTS, made, _read_restore), wait, within)


def _what(kube: Kube, sealed: Obj, owner: str, like: str, file: Path | None) -> Owner | Template:
    namespace = sealed["metadata"]["namespace"]
    try:
        if like:
            return Template(
                name="", template=templates.of_pod(kube.get(resources.PODS, like, namespace))
            )
        if file is not None:
            return Template(name="", template=templates.of_document(_loaded(file), str(file)))
    except NotFound:
        fail(f"--like {like}: there is no such pod in {namespace}")
    except Malformed as malformed:
        fail(str(malformed))
    return _owner(owner) if owner else _sealed_owner(sealed)


def _loaded(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as problem:
        fail(f"{file}: no YAML ({str(problem).splitlines()[0]})")


def _owner(text: str) -> Owner:
    kind, _, name = text.partition("/")
    found = [known for known in OwnerKind if known.lower() == kind.lower()]
    if not found or not name:
        fail(f"--owner {text}: expected deployment/NAME or statefulset/NAME")
    return Owner(found[0], name)


def _sealed_owner(sealed: Obj) -> Owner:
    """Whom the checkpoint's identity names."""
    workload = str(sealed["spec"]["workload"])
    found = _identified(workload)
    if found is None:
        fail(
            f"{workload} was sealed, which nothing can be scaled for: "
            "say --like POD or --file FILE, and a pod of its own is made"
        )
    return found


def _identified(workload: str) -> Owner | None:
    """Of an identity as `kybernate.api.identity` writes it."""
    kind, _, rest = workload.partition(".")
    name, _, ordinal = rest.rpartition(".")
    if kind == "deployment" and rest:
        return Owner(OwnerKind.DEPLOYMENT, rest)
    return Owner(OwnerKind.STATEFULSET, name) if kind == "statefulset" and ordinal else None


@dataclass(frozen=True, slots=True)
class _Request:
    """One that was made. `read` gives its status and, once it succeeded, what came of it."""

    kube: Kube
    resource: Resource
    made: Obj
    read: Callable[[Mapping[str, Any]], tuple[RequestStatus, str]]

    @property
    def name(self) -> str:
        """As kubectl takes it."""
        return f"{self.resource.kind.lower()}/{self.made['metadata']['name']}"

    def look(self) -> tuple[RequestStatus, str]:
        """How it is now. Raises ApiError."""
        metadata = self.made["metadata"]
        return self.read(self.kube.get(self.resource, metadata["name"], metadata["namespace"]))


def _answer(request: _Request, wait: bool, within: float) -> None:
    """Say what was made, or what came of it."""
    if not wait:
        namespace = request.made["metadata"]["namespace"]
        console.print(f"{request.name}: `kubectl get -n {namespace} {request.name}` shows it")
        return
    try:
        status, result = _followed(request, within)
    except NotFound:
        fail(f"{request.name} was deleted; what was under way goes on")
    if status.state is not RequestState.SUCCEEDED:
        fail(f"{request.name}: {status.message or status.reason}")
    console.print(f"{result}: {status.message}")


def _followed(request: _Request, within: float) -> tuple[RequestStatus, str]:
    """The finished status; each new message is told on the way. Raises ApiError."""
    pause, said, looks = threading.Event(), "", int((within + DONE_AFTER_S) / LOOK_EVERY_S)
    while True:
        status, result = request.look()
        if status.is_finished:
            return status, result
        if status.message and status.message != said:
            said = status.message
            console.print(f"{status.state}: {said}", style="dim")
        looks -= 1
        if looks < 0:
            fail(f"{request.name}: nobody carries it out; does the controller run? {said}")
        pause.wait(LOOK_EVERY_S)


def _read_checkpoint(obj: Mapping[str, Any]) -> tuple[RequestStatus, str]:
    status: CheckpointStatus = checkpointrequests.read_request(obj).status
    return status, status.checkpoint


def _read_restore(obj: Mapping[str, Any]) -> tuple[RequestStatus, str]:
    status: RestoreStatus = restorerequests.read_request(obj).status
    return status, status.pod
