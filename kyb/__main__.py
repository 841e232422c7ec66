"""`kyb`: the commands. Each is one function in a module of its own; here they are only named."""

import typer

from kyb import local, show, turns

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="VRAM as a cache for active workloads: see who holds which GPU, and ask for a turn.",
)
app.command("up")(local.up)
app.command("down")(local.down)
app.command("ps")(show.ps)
app.command("topology")(show.topology)
app.command("resume")(turns.resume)
app.command("park")(turns.park)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
