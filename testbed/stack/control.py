"""Argument lists of what runs beside the API server: controller, extender, webhook, OPA's file.

Called by `testbed.stack.stack`. The flags are those of the manifests, with addresses of here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kybernate.api.opa_config import BundleTls, opa_config
from testbed import ports
from testbed.stack.install import MANIFESTS

SCHEDULER = "kybernate"
SCHEDULER_EXAMPLE = MANIFESTS / "examples" / "scheduler.yaml"


@dataclass(frozen=True, slots=True)
class Place:
    """What every process is told: who it is, where its certificates are, where OPA is."""

    kubeconfig: Path
    tls: Path
    opa_url: str = ""

    def arguments(self, port: int, address: str = ports.LOOPBACK) -> list[str]:
        """The flags they share."""
        opa = [f"--opa-url={self.opa_url}"] if self.opa_url else []
        listen = f"--listen={address}:{port}"
        return [listen, f"--kubeconfig={self.kubeconfig}", f"--tls-dir={self.tls}", *opa]


def controller(place: Place, port: int, opa: Path, work: Path) -> list[str]:
    """It checks policies with the real opa, and names this machine in its certificates."""
    return [
        *place.arguments(port),
        f"--opa={opa}",
        f"--bundle-dir={work / 'bundle'}",
        "--extra-names=localhost,127.0.0.1",
        # OPA polls every 2 s, and the extender remembers verdicts for one.
        "--policy-settle=3s",
    ]


def extender(place: Place, port: int) -> list[str]:
    """As shipped."""
    return [*place.arguments(port), "--require-client-certificate"]


def webhook(place: Place, port: int) -> list[str]:
    """Seat pods go to the scheduler that asks our extender."""
    return [*place.arguments(port), f"--scheduler={SCHEDULER}"]


def activator(place: Place, port: int, view_port: int, client: Path) -> list[str]:
    """In plain text, as a cluster's clients call models. Models of the testbed listen at 8080."""
    return [
        f"--listen={ports.LOOPBACK}:{port}",
        f"--view-listen={ports.LOOPBACK}:{view_port}",
        f"--kubeconfig={place.kubeconfig}",
        f"--client-tls-dir={client}",
        "--model-port=8080",
    ]


def write_opa_config(work: Path, controller_url: str, client: Path) -> Path:
    """OPA's configuration: bundles from the controller, shown a client certificate."""
    tls = BundleTls(
        ca=str(client / "ca.crt"),
        certificate=str(client / "tls.crt"),
        key=str(client / "tls.key"),
    )
    body = opa_config(url=controller_url, persistence=str(work / "opa-bundles"), tls=tls)
    path = work / "opa.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def scheduler_config(extender_url: str, tls: Path) -> dict[str, Any]:
    """The shipped example, with the extender's address here and a profile for everybody else."""
    config: dict[str, Any] = yaml.safe_load(SCHEDULER_EXAMPLE.read_text())
    extender = config["extenders"][0]
    extender["urlPrefix"] = extender_url
    extender["tlsConfig"] = {
        "caFile": str(tls / "ca.crt"),
        "certFile": str(tls / "tls.crt"),
        "keyFile": str(tls / "tls.key"),
    }
    config["profiles"].append({"schedulerName": "default-scheduler"})
    return config
