"""What a recording does not show, and that it agrees with itself all the same."""

from pathlib import Path
from typing import Any

import pytest
import trio
from tests.client.support import URL, Scripted, scripted
from tests.telemetry.support import ORIGIN
from tests.trace.scenes import Scene
from tests.trace.support import back, encoded, eventful, live_records, run, written
from tests.trace.test_schema import Reversing, callback

from slipstream_trio import ConnectionRejected, JoinError, Message, PushError, SlipstreamError, connect
from slipstream_trio.protocol import (
    CloseConnection,
    CloseTransport,
    FrameReceived,
    SendFrame,
    TransportClosed,
    V1Serializer,
    V2Serializer,
)
from slipstream_trio.telemetry import ClientGaveUp, ConnectStop, MessageDiscarded, Telemetry
from slipstream_trio.telemetry.span import exception_record
from slipstream_trio.trace import SECRETS, Redacted, check, read, record, replay
from slipstream_trio.trace.redact import Redactor

SECRET = "hunter22hunter22"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"


async def secretive(telemetry: Telemetry, **options: Any) -> None:
    """Let secrets be wherever they can be."""
    async with scripted(telemetry=telemetry, reconnect=None, **options) as (socket, peer):
        payload = {"user_token": SECRET, "nested": [{"apiKey": SECRET}], "name": "grace", "count": 3}
        async with socket.join("room", payload) as channel:
            peer.message("room", "event", {"Access-Token": SECRET, "list": [1, 2], "said": f"Bearer {SECRET}"})
            peer.feed(f'[null,null,"room","event",{{"t\\u006fken":"{SECRET}","ok":true}}]')
            peer.feed(f'["1","9","room","phx_reply",{{"status":"ok","response":{{"session_id":"{SECRET}"}}}}]')
            peer.feed(f'[null,null,"room","event",{{"password":"{SECRET}"')
            await channel.push("echo", {"password": SECRET, "url": f"https://grace:{SECRET}@host/?token={SECRET}"})
            await channel.send("secret", {"secret": {"deep": [SECRET, 5, None, True]}})
            await channel.send("jwt", {"said": JWT})


@pytest.fixture(scope="module")
def secrets() -> list[Any]:
    return live_records(secretive)


def test_no_secret_is_written(secrets: list[Any], tmp_path: Path) -> None:
    path = written(tmp_path / "trace.jsonl", encoded(secrets))
    text = path.read_text()
    assert SECRET not in text
    assert JWT not in text
    assert '"grace"' in text.replace("\\", "")
    assert text.count("[redacted]") > 10
    unredacted = b"".join(encoded(secrets, redactor=Redactor(secrets=None)))
    assert unredacted.count(SECRET.encode()) > 10


def test_texts_of_ends_are_redacted_in_states_and_records_alike(tmp_path: Path) -> None:
    scene = Scene()
    scene.connect()
    scene.handle(CloseConnection(1000, f"token={SECRET}"))
    scene.handle(TransportClosed(1008, f"your token={SECRET} is gone", "server"))
    end = ConnectStop(scene.records[1], 10**10, scene.state, f"token={SECRET}", "client", 1008, f"token={SECRET}")  # type: ignore[arg-type]
    scene.records.append(end)
    scene.once(ClientGaveUp, f"token={SECRET}", 3, 403, f"mind token={SECRET}")
    scene.once(MessageDiscarded, "in", None, None, None, "not JSON", f'["1","2","room","event",{{"token":"{SECRET}')
    path = written(tmp_path / "trace.jsonl", encoded(scene.records))
    assert SECRET not in path.read_text()
    *_, closed, gave_up, dropped = read(path)
    assert (closed.metadata["message"], closed.metadata["code"]) == ("token=[redacted]", 1008)
    assert closed.metadata["state"].close_reason == "token=[redacted]"
    assert (gave_up.metadata["hint"], gave_up.metadata["status"]) == ("mind token=[redacted]", 403)
    assert dropped.metadata["frame"] == Redacted()


@pytest.mark.parametrize("payloads", ["keep", "omit", "size", lambda payload: {"is": type(payload).__name__}])
@pytest.mark.parametrize("scenario", [secretive, eventful])
def test_a_redacted_recording_is_sound_and_can_be_replayed(scenario: Any, payloads: Any, tmp_path: Path) -> None:
    lines = encoded(live_records(scenario), redactor=Redactor(payloads=payloads))
    path = written(tmp_path / "trace.jsonl", lines)
    assert list(check([path])) == []
    assert list(replay(read(path))) == []
    text = path.read_text()
    assert SECRET not in text
    if payloads != "keep":
        assert "grace" not in text
        assert "quoted" not in text


def test_frames_of_serializer_1_are_redacted_too() -> None:
    frame = f'{{"topic":"room","event":"event","payload":{{"token":"{SECRET}"}},"ref":null}}'
    shown = Redactor().frame(frame, "v1", sent=False)
    assert isinstance(shown, str)
    assert V1Serializer().decode(shown) == Message(None, None, "room", "event", {"token": "[redacted]"})


@pytest.mark.parametrize("sent", [False, True])
def test_binary_frames_are_redacted_where_payloads_are(sent: bool) -> None:
    message = Message("1", "2" if sent else None, "room", "event", b"data")
    frame = V2Serializer().encode(message) if sent else b"\x00\x01\x04\x051roomeventdata"
    for payloads, left in (("omit", None), ("size", {"size": 4}), (lambda payload: payload.upper(), b"DATA")):
        shown = Redactor(payloads=payloads).frame(frame, "v2", sent=True)  # type: ignore[arg-type]
        if sent and left is not None and not isinstance(left, dict):
            assert shown == V2Serializer().encode(message._replace(payload=left))
        shown = Redactor(payloads=payloads).frame(frame, "v2", sent=sent)  # type: ignore[arg-type]
        if not isinstance(left, bytes):
            assert V2Serializer().decode(shown) == message._replace(payload=left)  # type: ignore[arg-type]
    assert Redactor().frame(frame, "v2", sent=sent) is frame


def test_the_structure_of_what_is_redacted_is_kept(secrets: list[Any], tmp_path: Path) -> None:
    recorded = back(tmp_path / "trace.jsonl", secrets)
    joins = [each for each in recorded if each.name[1:] == ("client", "join", "start")]
    hidden = {"user_token": "[redacted]", "nested": [{"apiKey": "[redacted]"}], "name": "grace", "count": 3}
    assert joins[0].metadata["params"] == hidden
    received = [each.metadata["raw_message"] for each in recorded if "raw_message" in each.metadata]
    frames: list[Any] = [each.frame for each in received if isinstance(each, FrameReceived)]
    assert '[null,null,"room","event",{"Access-Token":"[redacted]","list":[1,2],"said":"Bearer [redacted]"}]' in frames
    assert Redacted() in frames  # the one that is no message
    sent = [
        effect.frame for each in recorded for effect in each.metadata.get("return", ()) if type(effect) is SendFrame
    ]
    assert any('"secret":{"deep":["[redacted]",0,null,true]}' in frame for frame in sent)


def test_more_names_can_be_secrets_and_none(tmp_path: Path) -> None:
    telemetry = Telemetry()
    with record(tmp_path / "trace.jsonl", telemetry=telemetry, secrets={*SECRETS, "name"}):
        run(eventful, telemetry)
    assert "grace" not in (tmp_path / "trace.jsonl").read_text()
    assert not Redactor(secrets=None).redacted
    assert Redactor(payloads="omit").redacted == ("secrets", "payloads")


def test_frames_of_an_unknown_serializer_are_left_out_where_they_may_have_a_secret(tmp_path: Path) -> None:
    async def scenario(telemetry: Telemetry) -> None:
        async with scripted(telemetry=telemetry, serializer=Reversing(), answers=()) as (socket, peer):
            peer.feed(f'[null,null,"room","event",{{"url":"https://{SECRET}"}}]'[::-1])
            peer.feed('[null,null,"room","event",{"plain":1}]'[::-1])
            await socket.disconnect()

    records = live_records(scenario)
    recorded = back(tmp_path / "trace.jsonl", records, redactor=Redactor(payloads="omit"))
    messages = [each.metadata["message"] for each in recorded if "message" in each.metadata]
    assert messages.count(Message(None, None, "room", "event", None)) == 2
    assert list(replay(recorded)) == []


# Texts


@pytest.mark.parametrize(
    "text",
    [
        f"token={SECRET}",
        f"TOKEN = '{SECRET}'",
        f'{{"api_key": "{SECRET}"}}',
        f"{{'guest_token': '{SECRET}', 'a': 1}}",
        f'{{\\"token\\":\\"{SECRET}\\"}}',
        f"Authorization: Bearer {SECRET}",
        f"wss://grace:{SECRET}@example.org/socket",
        f"wss://example.org/socket?vsn=2.0.0&password={SECRET}&x=1",
        f"base64url.bearer.phx.{SECRET}",
        f"SFMyNTY.{SECRET}.{SECRET}",
        JWT.replace("c2lnbmF0dXJl", SECRET),
        f"session-id => {SECRET}",
        str(ConnectionRejected(403, (), f"who is {SECRET}?")),
        f'token="unterminated {SECRET}',
    ],
)
def test_secrets_in_texts_are_told_by_name_or_looks(text: str) -> None:
    shown = Redactor().text(text)
    assert SECRET not in shown
    assert "[redacted]" in shown


@pytest.mark.parametrize(
    "text", ["the author is grace", "room:lobby", "a token", "12:30", "https://host/path?page=2", ""]
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert Redactor().text(text) == text


def test_long_texts_take_no_time() -> None:
    for text in ("token" * 20_000, "a" * 100_000, '"' * 50_000, "bearer " * 20_000, "eyJ" * 30_000, "://" * 30_000):
        Redactor().text(text)  # what backtracks would not end


def test_headers_and_refusals_are_hidden(tmp_path: Path) -> None:
    async def refuse(_: Any) -> None:
        await trio.lowlevel.checkpoint()
        headers = [("set-cookie", f"session={SECRET}"), ("x-api-key", SECRET), ("retry-after", "1")]
        raise ConnectionRejected(403, headers, f"no such token: {SECRET}")

    async def scenario(telemetry: Telemetry) -> None:
        with pytest.raises(ConnectionRejected):
            async with connect(URL, telemetry=telemetry, transport=Scripted(opening=refuse)):
                raise AssertionError("not reached")

    records = live_records(scenario)
    path = written(tmp_path / "trace.jsonl", encoded(records))
    text = path.read_text()
    assert SECRET not in text
    assert '"retry-after","1"' in text.replace(" ", "")
    assert list(check([path])) == []
    assert list(replay(read(path))) == []


@pytest.mark.parametrize("payloads", ["omit", "size"])
def test_exceptions_and_objects_show_no_payload_where_payloads_are_hidden(payloads: Any, tmp_path: Path) -> None:
    def failure(error: SlipstreamError) -> Any:
        try:
            raise error
        except SlipstreamError as raised:
            (start, _) = callback()
            return exception_record(Telemetry(), start, ORIGIN, raised)  # type: ignore[arg-type]

    errors = [JoinError("room", {"said": SECRET}), PushError("room", "event", "error", {"said": SECRET})]
    arguments = callback({"said": SECRET}, SECRET, errors[0], Message(None, None, "room", "event", SECRET))
    records = [*arguments, *map(failure, errors)]
    lines = encoded(records, redactor=Redactor(payloads=payloads))
    text = b"".join(lines).decode()
    assert SECRET not in text
    assert "test_redact.py" in text  # where it was raised
    assert '"event":"event"' in text
    assert SECRET in b"".join(encoded(records)).decode()
    assert len(list(read(written(tmp_path / "trace.jsonl", lines)))) == 4


def test_a_function_that_fails_shows_nothing(tmp_path: Path) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError(SECRET)

    records = live_records()
    path = written(tmp_path / "trace.jsonl", encoded(records, redactor=Redactor(payloads=fail)))
    assert "grace" not in path.read_text()
    assert SECRET not in path.read_text()
    assert list(check([path])) == []
    assert list(replay(read(path))) == []


def test_what_a_function_makes_unsendable_is_left_out(tmp_path: Path) -> None:
    records = live_records()
    path = written(tmp_path / "trace.jsonl", encoded(records, redactor=Redactor(payloads=lambda _: object)))
    assert list(check([path])) == []
    recorded = list(read(path))
    assert len(recorded) == len(records)
    assert CloseTransport(1000, "") in [effect for each in recorded for effect in each.metadata.get("return", ())]


def test_nothing_suspicious_costs_no_copy() -> None:
    payload = {"a": [1, {"b": "c"}]}
    assert Redactor().payload(payload) is payload
    frame = '[null,null,"room","event",{"a":1}]'
    assert Redactor().frame(frame, "v2", sent=False) is frame
