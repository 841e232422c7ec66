"""`kyb store check` and `prepare`: the bucket a store lies in, and the rules it needs. (`usage`, of
the cluster's own store, is in `usage.py`.)

Rule: `check` changes nothing; `prepare` makes what is missing and takes nothing away.
"""

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kyb import usage
from kyb.faults import fail
from kybernate.api.quantity import readable_bytes
from kybernate.stores import places
from kybernate.stores.arranging import UNFINISHED_DAYS, Arranging, Standing
from kybernate.stores.places import BadPlace

console = Console(highlight=False, soft_wrap=True)
app = typer.Typer(
    no_args_is_help=True, help="The bucket a store of checkpoints lies in, and who keeps how much."
)
app.command("usage")(usage.usage)
Bucket = Annotated[str, typer.Argument(help="s3://BUCKET or s3://BUCKET/PREFIX.")]


@app.command()
def check(place: Bucket) -> None:
    """Say what is there and what is missing; exit status 1 where something is."""
    arranging = _arranging(place)
    _say(place, arranging, arranging.standing())


@app.command()
def prepare(place: Bucket) -> None:
    """Make the bucket and the rule for unfinished uploads, where they are missing."""
    arranging = _arranging(place)
    _say(place, arranging, arranging.prepare())


def _arranging(place: str) -> Arranging:
    try:
        return Arranging(places.access(place, os.environ))
    except BadPlace as problem:
        fail(str(problem))


def _say(place: str, arranging: Arranging, standing: Standing) -> None:
    rows = list(_rows(standing))
    table = Table(box=None, show_header=False)
    for _, what, said in rows:
        table.add_row(what, said)
    if standing.there:
        found = arranging.inventory()
        for kind in sorted(found.objects):
            size = readable_bytes(found.sizes[kind])
            table.add_row(kind, f"{found.objects[kind]}, {size}")
        table.add_row("unfinished uploads", str(found.uploads))
    console.print(table)
    if not all(good for good, _, _ in rows):
        fail(f"{place} is not as a store needs it")


def _rows(standing: Standing) -> list[tuple[bool, str, str]]:
    """Whether it is good, what, and how it is."""
    if not standing.there:
        return [(False, "bucket", "missing: `kyb store prepare` makes it")]
    uploads = {
        True: f"end by a rule (ours: after {UNFINISHED_DAYS} day)",
        False: "stay for ever: `kyb store prepare` makes the rule",
        None: "the server knows no rules for them",
    }[standing.unfinished]
    versions = "kept: what is collected costs on until a rule of yours ends old versions"
    rules = ", ".join(standing.expires)
    return [
        (True, "bucket", "there"),
        (standing.unfinished is not False, "uploads that nobody finishes", uploads),
        (True, "old versions", versions if standing.keeps_versions else "not kept"),
        (
            not standing.expires,
            "rules that delete objects",
            f"{rules}: they take packs that manifests name; take them away" if rules else "none",
        ),
    ]
