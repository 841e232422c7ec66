"""
OPA's own configuration: where its bundle comes from, how often it asks, where it keeps it. Pure.

Written by: manifests and the testbed, as JSON or YAML; OPA reads both (`opa run --config-file`).
"""

from dataclasses import dataclass
from typing import Any

BUNDLE = "kyb"  # its name in OPA, under which an answer's provenance gives the revision
BUNDLE_PATH = "bundles/kyb.tar.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleTls:
    """Paths of PEM files: who may serve the bundle, and who asks (both empty: anybody)."""

    ca: str
    certificate: str = ""
    key: str = ""


def opa_config(
    *,
    url: str,
    persistence: str,
    tls: BundleTls | None = None,
    poll_seconds: tuple[int, int] = (1, 2),
) -> dict[str, Any]:
    """Fetch `url`/bundles/kyb.tar.gz every 1 to 2 s, and start from the last one kept on disk.

    An edit is therefore live within 2 s. An unchanged bundle costs a 304: OPA sends its ETag.
    `persistence` is a folder that OPA may write.
    """
    shortest, longest = poll_seconds
    return {
        "services": {"controller": _service(url, tls)},
        "bundles": {
            BUNDLE: {
                "service": "controller",
                "resource": BUNDLE_PATH,
                "persist": True,
                "polling": {"min_delay_seconds": shortest, "max_delay_seconds": longest},
            }
        },
        "persistence_directory": persistence,
    }


def _service(url: str, tls: BundleTls | None) -> dict[str, Any]:
    service: dict[str, Any] = {"url": url, "response_header_timeout_seconds": 5}
    if tls:
        service["tls"] = {"ca_cert": tls.ca}
    if tls and tls.certificate:
        service["credentials"] = {
            "client_tls": {
                "cert": tls.certificate,
                "private_key": tls.key,
                "cert_reread_interval_seconds": 60,  # certificates are rotated under it
            }
        }
    return service
