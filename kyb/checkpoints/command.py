"""The group `kyb checkpoint`: its first word is a command of it, else the workload to seal."""

from typing import Any

import typer
from typer.core import TyperGroup

from kyb import requesting
from kyb.checkpoints import carrying, inspecting, listing

_ASK = "of"


class Group(TyperGroup):
    """`kyb checkpoint llama-0 --wait` asks for one; a workload of a command's name is reached as
    NAMESPACE/NAME."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer, after the word that people leave out was put before."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_ASK, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Ask for a checkpoint of a workload (`kyb checkpoint NAME`); list, carry, show them.",
)
app.command(_ASK)(requesting.checkpoint)
app.command("list")(listing.list_)
app.command("export")(carrying.export)
app.command("import")(carrying.import_)
app.command("clone")(carrying.clone)
app.command("inspect")(inspecting.inspect)
app.command("rewrap")(carrying.rewrap)
