"""`kyb store usage`: what each namespace keeps in the cluster's object store, and what it may.

What is there the GpuCheckpoints say, each counted whole; the limits are policy's data. Whoever may
not read those sees what is kept, and no limit.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import orjson
from rich.table import Table

from kyb import reach
from kyb.show import console, wide
from kybernate.api import names, policy_files
from kybernate.api.checkpoints import read_checkpoint
from kybernate.api.errors import Malformed
from kybernate.api.policy import read_store_limits
from kybernate.api.quantity import readable_bytes
from kybernate.clients.errors import Forbidden, NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.resources import CONFIGMAPS, GPUCHECKPOINTS
from kybernate.decisions import storing
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NO_REVISION
from kybernate.model.storelimits import StoreLimits

COLUMNS = ("NAMESPACE", "CHECKPOINTS", "KEPT", "OF")
ALL = "(all)"
_QUOTAS = "data/quotas.json"


def usage(kubeconfig: reach.Kubeconfig = None) -> None:
    """Say what each namespace keeps in the cluster's object store, and of how much."""
    kube = reach.kube(kubeconfig)
    found = []
    for obj in kube.list(GPUCHECKPOINTS):
        try:
            found.append(read_checkpoint(obj))
        except Malformed:
            continue  # `kyb checkpoint list` leaves it out as well
    limits = _limits(kube)
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column)
    for row in rows_of(found, limits):
        table.add_row(*row)
    wide(table)
    if limits is None:
        console.print("limits are in ConfigMap kyb-system/kyb-policies, which cannot be read")


def rows_of(found: Iterable[Checkpoint], limits: StoreLimits | None) -> list[tuple[str, ...]]:
    """One for each namespace that keeps something there, or has a limit; the last is for all."""
    stored = [one for one in found if one.in_object_storage]
    sizes, counts = storing.kept(stored), Counter(one.namespace for one in stored)
    named = limits.namespaces if limits else {}
    rows = [
        (
            name,
            str(counts[name]),
            readable_bytes(sizes[name]),
            _of(limits.of(name) if limits else None),
        )
        for name in sorted({*sizes, *named})
    ]
    whole = limits.whole if limits else None
    return [*rows, (ALL, str(len(stored)), readable_bytes(sizes.total()), _of(whole))]


def _of(limit: int | None) -> str:
    return "-" if limit is None else readable_bytes(limit)


def _limits(kube: Kube) -> StoreLimits | None:
    """None where they cannot be read. Raises ApiError."""
    try:
        policies = kube.get(CONFIGMAPS, "kyb-policies", names.SYSTEM_NAMESPACE)
    except (Forbidden, NotFound):
        return None
    return _read(policies.get("data") or {})


def _read(members: dict[str, Any]) -> StoreLimits | None:
    try:
        text = policy_files.from_keys(members)[_QUOTAS]
        return read_store_limits(orjson.loads(text), NO_REVISION)
    except (KeyError, Malformed, orjson.JSONDecodeError):
        return None
