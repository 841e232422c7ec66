"""`kyb`: the commands. Each is one function in a module of its own; here they are only named."""

import sys
from pathlib import Path

import typer

from kyb import arranging, faults, local, registry, requesting, show, turns
from kyb.checkpoints import command as checkpoints
from kyb.collecting import gc
from kyb.doctor.command import doctor
from kyb.nodefiles.command import install_node, uninstall_node
from kyb.top import top
from kybernate.clients.errors import ApiError, Refused, Retry, Unavailable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="VRAM as a cache for active workloads: see who holds which GPU, and ask for a turn.",
)
app.command("up")(local.up)
app.command("down")(local.down)
app.command("ps")(show.ps)
app.command("top")(top)
app.command("topology")(show.topology)
app.command("resume")(turns.resume)
app.command("park")(turns.park)
app.add_typer(checkpoints.app, name="checkpoint")
app.command("restore")(requesting.restore)
app.command("gc")(gc)
app.add_typer(arranging.app, name="store")
app.add_typer(registry.app, name="registry")
app.command("doctor")(doctor)
app.command("install-node")(install_node)
app.command("uninstall-node")(uninstall_node)


def main() -> None:
    """The console script. What is known to go wrong is told in a sentence, with exit status 1."""
    plugin = Path(sys.argv[0]).name == "kubectl-kyb"  # so kubectl starts us for `kubectl kyb`
    try:
        app(prog_name="kubectl kyb" if plugin else "kyb")
    except Unavailable as away:
        known = away.status or away.reason  # of a network fault the text is urllib3's, and long
        faults.say(f"the API server does not answer ({known}): is it up, and the kubeconfig right?")
        raise SystemExit(1) from None
    except (ApiError, Refused, Retry, OSError) as fault:
        faults.say(fault)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
