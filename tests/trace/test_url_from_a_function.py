"""Traces of connections whose URL a function gave: the options have none, the transport's opening does."""

from pathlib import Path

import pytest
from tests.client.support import URL, Scripted
from tests.trace.support import Records, back, encoded, live_records, values

from slipstream_trio import ConnectError, connect
from slipstream_trio.protocol import TransportFailed, TransportOpened
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.trace import replay, verify
from slipstream_trio.trace.export_spans import describe as span_of
from slipstream_trio.trace.view import describe
from slipstream_trio.transport import OpenRequest


async def refuse(_: OpenRequest) -> None:
    raise ConnectError("nobody is there")


async def scenario(telemetry: Telemetry) -> None:
    async with connect(lambda: f"{URL}?token=hush", transport=Scripted(), telemetry=telemetry) as socket:
        await socket.ping()
    with pytest.raises(ConnectError):
        async with connect(lambda: URL, transport=Scripted(opening=refuse), telemetry=telemetry):
            pytest.fail("the block must not be entered")


@pytest.fixture(scope="module")
def records() -> Records:
    return live_records(scenario)


def test_a_recording_has_it_where_the_transport_opens_or_fails(records: Records, tmp_path: Path) -> None:
    again = back(tmp_path / "trace.jsonl", records)
    starts = [record for record in again if record.name[1:] == ("connection", "handle", "start")]
    inputs = [record.metadata["raw_message"] for record in starts]
    (opened,) = (given for given in inputs if isinstance(given, TransportOpened))
    (failed,) = (given for given in inputs if isinstance(given, TransportFailed))
    assert (opened.url, failed.url) == (URL, URL)
    states = [record.metadata["state"] for record in again if "state" in record.metadata]
    assert {state.options.url for state in states} == {None}
    assert verify(again) == []
    assert list(replay(again)) == []
    assert all(b"hush" not in line for line in encoded(records))
    assert values(encoded(records)[0])["slipstream_trace"]["schema"] == "1.2"


def test_a_line_of_history_tells_it(records: Records) -> None:
    lines = [line for record in records if (line := describe(record)) is not None]
    notes = {line.what: line.note for line in lines if line.what in ("opened", "failed")}
    assert notes == {"opened": f"{URL} scripted", "failed": f"{URL} nobody is there"}


def test_a_span_has_no_address_then(records: Records) -> None:
    spans = [span_of(record) for record in records if record.name[-2:] == ("connect", "start")]
    assert spans
    for span in spans:
        assert span.attributes["network.protocol.name"] == "websocket"
        assert not any(key.startswith(("server.", "url.")) for key in span.attributes)
