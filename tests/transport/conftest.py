"""What the tests of transports share."""

import pytest
from tests.transport import support


@pytest.fixture(params=["trio_websocket", "websockets"])
def each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with each of the WebSocket transports."""
    monkeypatch.setattr(support, "chosen", request.param)
    name: str = request.param
    return name
