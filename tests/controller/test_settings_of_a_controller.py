"""What follows from a controller's settings, and which are refused."""

import pytest

from controller.settings import CLIENTS, SERVERS, Settings
from kybernate.api.errors import Malformed
from kybernate.runtime import settings


def test_every_server_is_named_as_its_service_and_as_asked_for() -> None:
    read = settings.load(Settings, argv=["--extra-names=localhost,127.0.0.1"])
    wants = {want.secret: want for want in read.terms().wants}
    assert wants.keys() == {
        *(f"{server}-tls" for server in SERVERS),
        *(f"{client}-tls" for client in CLIENTS),
    }
    assert wants["kyb-webhook-tls"].names == {
        "kyb-webhook",
        "kyb-webhook.kyb-system",
        "kyb-webhook.kyb-system.svc",
        "kyb-webhook.kyb-system.svc.cluster.local",
        "localhost",
        "127.0.0.1",
    }
    assert wants["kyb-client-tls"].client
    assert wants["kyb-client-tls"].names == {"kyb-client"}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        pytest.param(
            ["--certificate-lifetime=1h", "--certificate-overlap=11m"],
            "certificateOverlap",
            id="overlap",
        ),
        pytest.param(["--authority-lifetime=24h"], "authorityNotice", id="notice"),
    ],
)
def test_whatever_is_replaced_must_outlive_its_replacement(arguments: list[str], name: str) -> None:
    with pytest.raises(Malformed, match=name):
        settings.load(Settings, argv=arguments)
    assert settings.load(Settings, argv=["--certificate-lifetime=1h", "--certificate-overlap=10m"])
