"""What a controller is told at start, and the certificates that follow from it."""

from dataclasses import dataclass
from pathlib import Path

from controller.certificates import Terms, Want
from kybernate.api import names
from kybernate.api.errors import Fault, Malformed
from kybernate.runtime.settings import ProcessSettings, setting

SERVERS = ("kyb-extender", "kyb-webhook", "kyb-nodeagent", "kyb-controller", "kyb-registry")
# Who calls agents, agents and activators that do, kube-scheduler that calls the extender: each has
# one name, and whoever is called goes by it.
CLIENTS = (
    names.CLIENT, names.AGENT_CLIENT, names.ACTIVATOR_CLIENT, names.SCHEDULER_CLIENT,
)  # fmt: skip

_DAY = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Settings(ProcessSettings):
    """Owns GpuWorkloads, certificates, agents' readiness and the policy bundle."""

    listen: str = setting(":8443", unit="address", help="where OPA fetches the policy bundle")
    namespace: str = setting(
        names.SYSTEM_NAMESPACE, help="where our Secrets, Leases and policies are"
    )
    opa: Path = setting(Path("opa"), help="the program that checks policies; looked for on PATH")
    opa_url: str = setting(
        "",
        help="the OPA beside us, if any: it judges which checkpoints are kept (without it all "
        "are), and refused pods are tried again once it has new policies",
    )
    bundle_dir: Path = setting(
        Path("/tmp/kyb-bundle"),  # noqa: S108 - a volume of our own, and it is made for us alone
        help="folder that keeps the last good bundle over a restart",
    )
    policy_settle: float = setting(
        5.0,
        unit="seconds",
        help="from serving new policies until refused pods are tried again; OPAs poll every 2 s, "
        "and the extender remembers verdicts for 1 s",
    )
    certificates: bool = setting(
        True, help="issue and rotate our certificates; false where something else makes the Secrets"
    )
    extra_names: tuple[str, ...] = setting(
        (), help="further DNS names and addresses in every server's certificate"
    )
    authority_lifetime: float = setting(
        3650 * _DAY,
        unit="seconds",
        help="of our certificate authority; long, because a change of it asks for restarts",
    )
    authority_notice: float = setting(
        30 * _DAY,
        unit="seconds",
        help="how long a new authority is trusted before it signs; kube-scheduler and OPA have to "
        "be restarted within it",
    )
    certificate_lifetime: float = setting(
        90 * _DAY, unit="seconds", help="of each certificate; replaced after two thirds of it"
    )
    zero_after: float = setting(
        600.0,
        unit="seconds",
        help="how long a model that may go to zero (kyb.ai/scale-to-zero) is parked before it is "
        "sealed and its pod goes; coming back from a checkpoint takes tens of seconds, so not soon",
    )
    checkpoint_key_lifetime: float = setting(
        365 * _DAY,
        unit="seconds",
        help="how long a key signs checkpoints; what it has signed stays good after that",
    )
    store_every: float = setting(
        _DAY,
        unit="seconds",
        help="how often an agent is asked to collect the object store that agents are given; 0: "
        "never",
    )
    store_grace: float = setting(
        _DAY,
        unit="seconds",
        help="how long packs stay there that no manifest names; longer than the longest wake",
    )
    certificate_overlap: float = setting(
        600.0,
        unit="seconds",
        help="between the steps of a change of authority; a kubelet brings a Secret within two "
        "minutes, so this forgives a slow one",
    )

    def __post_init__(self) -> None:
        """Raises Malformed: whatever is replaced must outlive the steps of its replacement."""
        pairs = (
            ("certificateOverlap", self.certificate_overlap, self.certificate_lifetime),
            ("authorityNotice", self.authority_notice, self.authority_lifetime),
        )
        faults = [
            Fault(name, f"{wait:g}s", f"at most a sixth of the lifetime, {lifetime / 6:g}s")
            for name, wait, lifetime in pairs
            if wait > lifetime / 6
        ]
        if faults:
            raise Malformed(faults)

    def terms(self) -> Terms:
        """The Secrets to keep, and for how long steps overlap."""
        servers = tuple(
            Want(secret=f"{server}-tls", names=frozenset({*self._names(server), *self.extra_names}))
            for server in SERVERS
        )
        clients = tuple(
            Want(secret=f"{client}-tls", names=frozenset({client}), client=True)
            for client in CLIENTS
        )
        wants = (*servers, *clients)
        return Terms(overlap=self.certificate_overlap, notice=self.authority_notice, wants=wants)

    def _names(self, server: str) -> tuple[str, ...]:
        """What a Service is called, from near and far."""
        local = f"{server}.{self.namespace}.svc"
        return server, f"{server}.{self.namespace}", local, f"{local}.cluster.local"
