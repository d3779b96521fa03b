"""What the tests of transports share."""

import pytest
from tests.transport import support

from slipstream_trio.transport import find_connector

WITHOUT_EXTRAS = find_connector("auto").name == "trio_websocket"


@pytest.fixture(params=["trio_websocket"] if WITHOUT_EXTRAS else ["trio_websocket", "websockets"])
def each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with each of the WebSocket transports."""
    monkeypatch.setattr(support, "chosen", request.param)
    name: str = request.param
    return name
