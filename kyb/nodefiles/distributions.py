"""
Who brings containerd along, and what follows for people: the file to edit, how to restart it. Pure.

Called by: `plan`, `standing`.
Rule: paths are those of their documentation; none of them but the usual one was tried.
"""

from dataclasses import dataclass

RESTART = "restart containerd: systemctl restart containerd (running pods go on)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One that has a containerd of its own and writes its configuration anew at each start."""

    programs: str
    """Where its programs are, by which it is known."""
    state: str
    """containerd's folder of what runs."""
    template: str
    """What its configuration is made of."""
    restart: str


K3S = Distribution(
    programs="/var/lib/rancher/k3s/",
    state="/run/k3s/containerd",
    template="/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl",
    restart="systemctl restart k3s, or k3s-agent",
)
# Not `microk8s stop`, which removes the containers of all pods.
MICROK8S = Distribution(
    programs="/snap/microk8s/",
    state="/var/snap/microk8s/common/run/containerd",
    template="/var/snap/microk8s/current/args/containerd-template.toml",
    restart="snap restart microk8s.daemon-containerd",
)
ALL = (K3S, MICROK8S)


def of(program: str) -> Distribution | None:
    """Whose containerd this is, by its path; None for the system's own."""
    return next((one for one in ALL if program.startswith(one.programs)), None)


def restart(program: str) -> str:
    """What is left to do when containerd has to read its files anew."""
    theirs = of(program)
    return RESTART.replace("systemctl restart containerd", theirs.restart) if theirs else RESTART


def edited(program: str, path: str) -> str:
    """The file people change, where containerd itself reads `path`."""
    theirs = of(program)
    return theirs.template if theirs else path
