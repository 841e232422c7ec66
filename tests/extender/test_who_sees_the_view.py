"""`/debug/view` holds pods and nodes of the whole cluster, so not everybody is shown it."""

from typing import Any

import pytest

from extender import app
from extender.app import Seen
from kybernate.runtime.health import Health


@pytest.mark.parametrize(
    ("by_everybody", "address", "status"),
    [
        pytest.param(False, "10.1.2.3", 403, id="somebody-of-the-network"),
        pytest.param(False, "127.0.0.1", 200, id="by-port-forward"),
        pytest.param(False, "::1", 200, id="by-port-forward-ipv6"),
        pytest.param(False, "", 403, id="nobody-knows-who"),
        pytest.param(True, "10.1.2.3", 200, id="who-showed-a-certificate"),
    ],
)
def test_the_view_is_for_who_is_known_or_in_the_pod(
    extender: Any, by_everybody: bool, address: str, status: int
) -> None:
    seen = Seen(lambda: b"{}", by_everybody=by_everybody)
    flask = app.create(extender.service, extender.metrics, Health(), seen)
    answer = flask.test_client().get("/debug/view", environ_base={"REMOTE_ADDR": address})
    assert answer.status_code == status
    assert status == 200 or b"kubectl port-forward" in answer.data
