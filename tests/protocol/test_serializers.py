"""Messages to frames and back: V2 text, V2 binary, V1."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.protocol import wire
from tests.protocol.json_texts import nested

from slipstream_trio.errors import ProtocolError, SerializationError
from slipstream_trio.protocol import (
    MAX_DEPTH,
    Codec,
    Frame,
    Message,
    Serializer,
    StdlibCodec,
    V1Serializer,
    V2Serializer,
    default_codec,
    serializer_for,
)
from slipstream_trio.protocol.serializer import decoded_together

V2 = V2Serializer()
V1 = V1Serializer()


@pytest.mark.parametrize("make_codec", [StdlibCodec, default_codec])
def test_v2_text_is_a_compact_array_of_five(make_codec: Callable[[], Codec]) -> None:
    serializer = V2Serializer(make_codec())
    message = Message("1", "2", "room:ä", "new_msg", {"body": "☃ 😀", "n": [1, 1.5, None, True]})
    frame = '["1","2","room:ä","new_msg",{"body":"☃ 😀","n":[1,1.5,null,true]}]'
    assert serializer.encode(message) == frame
    assert serializer.decode(frame) == message
    assert type(serializer.decode(frame)) is Message


def test_v2_keeps_null_refs_and_payload() -> None:
    frame = '[null,null,"phoenix","heartbeat",null]'
    message = Message(None, None, "phoenix", "heartbeat", None)
    assert V2.encode(message) == frame
    assert V2.decode(frame) == message


@pytest.mark.parametrize("make_codec", [StdlibCodec, default_codec])
def test_v2_extra_elements_are_ignored(make_codec: Callable[[], Codec]) -> None:
    serializer = V2Serializer(make_codec())
    frame = wire.text("1", None, "room", "ev", {"a": 1}, "extra", {"more": [1]})
    assert serializer.decode(frame) == Message("1", None, "room", "ev", {"a": 1})


@pytest.mark.parametrize("make_codec", [StdlibCodec, default_codec])
@pytest.mark.parametrize("bad", [1, 1.5, True, [], {}])
@pytest.mark.parametrize(("slot", "name"), [*enumerate(["join_ref", "ref", "topic", "event"])])
def test_v2_refs_topic_and_event_are_strings(make_codec: Callable[[], Codec], slot: int, name: str, bad: Any) -> None:
    five: list[Any] = ["1", "2", "room", "ev", {}]
    five[slot] = bad
    with pytest.raises(ProtocolError, match=f"^{name} is {type(bad).__name__}, not a string"):
        V2Serializer(make_codec()).decode(json.dumps(five))


@pytest.mark.parametrize(("slot", "name"), [(2, "topic"), (3, "event")])
def test_v2_topic_and_event_are_not_null(slot: int, name: str) -> None:
    five: list[Any] = ["1", "2", "room", "ev", {}]
    five[slot] = None
    with pytest.raises(ProtocolError, match=f"{name} is NoneType"):
        V2.decode(json.dumps(five))


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        ("{}", "not an array but dict"),
        ("null", "not an array but NoneType"),
        ("[]", "an array of 0 elements, not of five"),
        ('[null,null,"room","ev"]', "an array of 4 elements, not of five"),
        *((f"{kind}abc", "a binary message as text: long-polling brings those to servers only") for kind in "\0\1\2"),
        (b"", "an empty binary frame"),
        (b"\x03abc", "a binary frame of unknown kind 3"),
        (b"\x00\x01", "a binary frame that ends inside its header"),
        (b"\x02\x01\x01\xff\xff", "a binary frame whose header is not UTF-8"),
    ],
)
def test_v2_errors_say_what_is_wrong(frame: str | bytes, problem: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{problem}") as caught:
        V2.decode(frame)
    assert caught.value.problem == str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\x00\x01\xff\xfe", b"x" * 70_000])
def test_binary_pushes_broadcasts_and_replies_from_the_server(data: bytes) -> None:
    topic = "echo:ü"
    assert V2.decode(wire.binary_push("1", topic, "ev", data)) == Message("1", None, topic, "ev", data)
    assert V2.decode(wire.binary_broadcast(topic, "ev", data)) == Message(None, None, topic, "ev", data)
    reply = Message("1", "2", topic, "phx_reply", {"status": "error", "response": data})
    assert V2.decode(wire.binary_reply("1", "2", topic, "error", data)) == reply


def test_an_empty_join_ref_in_a_binary_frame_is_none() -> None:
    assert V2.decode(wire.binary_push("", "room", "ev", b"")).join_ref is None
    assert V2.decode(wire.binary_reply("", "2", "room", "ok", b"")).join_ref is None


def test_the_longest_strings_of_a_binary_frame() -> None:
    longest = "ä" * 127 + "x"  # 255 bytes
    frame = wire.binary(1, longest, longest, longest, longest, data=b"data")
    payload = {"status": longest, "response": b"data"}
    assert V2.decode(frame) == Message(longest, longest, longest, "phx_reply", payload)


@pytest.mark.parametrize("data", [b"", b"\x00\x01\xff\xfe"])
@pytest.mark.parametrize("join_ref", ["1", None])
def test_a_binary_push_to_the_server(join_ref: str | None, data: bytes) -> None:
    frame = V2.encode(Message(join_ref, "23", "echo:ü", "binary", data))
    assert frame == wire.binary(0, join_ref or "", "23", "echo:ü", "binary", data=data)
    assert wire.parse(frame) == Message(join_ref, "23", "echo:ü", "binary", data)


def test_a_binary_push_without_a_ref() -> None:
    assert V2.encode(Message("1", None, "t", "e", b"")) == b"\x00\x01\x00\x01\x011te"


@pytest.mark.parametrize("name", ["join_ref", "ref", "topic", "event"])
def test_a_binary_push_has_at_most_255_bytes_not_characters_of_each_string(name: str) -> None:
    fits = Message("1", "2", "room", "ev", b"data")._replace(**{name: "ä" * 127 + "x"})
    assert wire.parse(V2.encode(fits)) == fits
    too_long = fits._replace(**{name: "ä" * 128})  # 128 characters, 256 bytes
    with pytest.raises(SerializationError, match=f"^a binary push's {name} has at most 255 bytes, .* has 256"):
        V2.encode(too_long)
    frame = V2.encode(too_long._replace(payload={}))  # text frames have no such limit
    assert wire.parse(frame) == too_long._replace(payload={})


def test_a_binary_push_that_cannot_be_sent_says_what_to_do() -> None:
    message = Message("1", "2", "room", "ev", b"data")
    advice = "send the payload as JSON, or use a shorter one"
    with pytest.raises(SerializationError, match=f"has at most 255 bytes, this one has 256: {advice}$"):
        V2.encode(message._replace(topic="x" * 256))
    with pytest.raises(SerializationError, match=r"^event: 'utf-8' codec can't encode"):
        V2.encode(message._replace(event="\ud800"))


@pytest.mark.parametrize("name", ["join_ref", "ref", "topic", "event"])
@pytest.mark.parametrize("payload", [b"data", {}])
def test_lone_surrogates_cannot_be_sent(name: str, payload: Any) -> None:
    message = Message("1", "2", "room", "ev", payload)._replace(**{name: "\ud800"})
    with pytest.raises(SerializationError):
        V2.encode(message)


@pytest.mark.parametrize("payload", [bytearray(b"data"), memoryview(b"data"), {"data": b"data"}, [b""]])
def test_only_bytes_as_the_whole_payload_make_a_binary_frame(payload: Any) -> None:
    with pytest.raises(SerializationError, match="is not a JSON type"):
        V2.encode(Message("1", "2", "room", "ev", payload))


@pytest.mark.parametrize("serializer", [V1Serializer, V2Serializer])
@pytest.mark.parametrize("make_codec", [StdlibCodec, default_codec])
@pytest.mark.parametrize(
    ("payload", "path", "problem"),
    [
        ({1}, "payload", "set is not a JSON type"),
        ([1, {"a": [None, {2: {3}}, {4}]}], 'payload[1]["a"][1]', "an object's keys are strings; a key of type int"),
        ([1, {"a": {"b": {5}, 2: 3}}], 'payload[1]["a"]["b"]', "set is not"),
        ({"größe": [float("nan")]}, 'payload["größe"][0]', "nan is not a JSON number: use a finite one, or None"),
        ({'say "hi"': (1,)}, r'payload["say \"hi\""]', "tuple is not"),
        ({"ok": "\ud800"[1:], "bad": ["x", "\ud800"]}, 'payload["bad"][1]', "not a JSON value"),
        ({"\ud800": {"a": 1}}, "payload", "not a JSON value"),
        ({"\ud800": {6}}, r'payload["\ud800"]', "set is not"),
        ({"n": [10**4300]}, 'payload["n"][0]', "not a JSON value"),
        (nested(MAX_DEPTH), "payload", "nested deeper than 128"),
        ({"a": nested(MAX_DEPTH + 1)}, "payload", "nested deeper than 128"),
        ([1, bytearray()], "payload[1]", "bytearray is not"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_sent_has_a_place_in_its_message(
    serializer: Any, make_codec: Callable[[], Codec], payload: Any, path: str, problem: str
) -> None:
    with pytest.raises(SerializationError) as caught:
        serializer(make_codec()).encode(Message("1", "2", "room", "ev", payload))
    error = caught.value
    assert (error.path, error.topic, error.event) == (path, "room", "ev")
    assert error.problem.startswith(problem)
    assert str(error).encode() == f"at {path}: {error.problem} (in 'ev' of 'room')".encode()


@pytest.mark.parametrize("make_codec", [StdlibCodec, default_codec])
@pytest.mark.parametrize("name", ["topic", "event"])
def test_a_topic_or_event_that_cannot_be_sent_is_the_place(name: str, make_codec: Callable[[], Codec]) -> None:
    message = Message("1", "2", "room", "ev", {})._replace(**{name: "\ud800"})
    with pytest.raises(SerializationError) as caught:
        V2Serializer(make_codec()).encode(message)
    assert caught.value.path == name
    str(caught.value).encode()


@pytest.mark.parametrize("make_codec", [StdlibCodec, default_codec])
def test_v1_is_an_object(make_codec: Callable[[], Codec]) -> None:
    serializer = V1Serializer(make_codec())
    message = Message("1", "2", "room", "ev", {"a": [1]})
    expected = {"join_ref": "1", "ref": "2", "topic": "room", "event": "ev", "payload": {"a": [1]}}
    frame = serializer.encode(message)
    assert isinstance(frame, str)
    assert json.loads(frame) == expected


def test_v1_messages_from_the_server_have_no_join_ref() -> None:
    assert V1.decode(wire.text_v1("2", "room", "ev", [1])) == Message(None, "2", "room", "ev", [1])
    with_one = json.dumps({"join_ref": "7", "ref": None, "topic": "room", "event": "ev", "payload": {}, "more": 1})
    assert V1.decode(with_one) == Message(None, None, "room", "ev", {})


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        ("[]", "not an object but list"),
        ("{}", "an object without event, payload, ref, topic"),
        ('{"topic":"t","event":"e","payload":{}}', "an object without ref"),
        ('{"topic":5,"event":"e","payload":{},"ref":null}', "topic is int, not a string"),
        ('{"topic":"t","event":"e","payload":{},"ref":1}', "ref is int, not a string or null"),
        (b"\x02\x01\x01te", "a binary frame, which serializer 1.0.0 does not have"),
    ],
)
def test_v1_errors_say_what_is_wrong(frame: str | bytes, problem: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{problem}"):
        V1.decode(frame)


def test_v1_has_no_binary_payloads() -> None:
    problem = r"serializer 1\.0\.0 has no binary payloads: connect with vsn='2\.0\.0'"
    with pytest.raises(SerializationError, match=rf"^at payload: {problem} \(in 'ev' of 'room'\)$"):
        V1.encode(Message("1", "2", "room", "ev", b""))


@pytest.mark.parametrize(
    ("vsn", "name"), [("2.0.0", "v2"), ("2.0.5", "v2"), ("2.0.10", "v2"), ("1.0.0", "v1"), ("1.0.3", "v1")]
)
def test_the_serializer_of_a_vsn(vsn: str, name: str) -> None:
    serializer: Serializer = serializer_for(vsn)
    assert serializer.name == name
    assert serializer.vsn == f"{vsn[0]}.0.0"


@pytest.mark.parametrize(
    "vsn", ["", "2", "2.0", "2.1.0", "3.0.0", "abc", "2.0.x", "1.0.x", "1.1.0", "2.0.", "2.0.0.0", " 2.0.0", "0.0.0"]
)
def test_no_serializer_for_a_vsn_that_phoenix_refuses(vsn: str) -> None:
    with pytest.raises(ValueError, match="unsupported vsn"):
        serializer_for(vsn)


def test_a_serializer_takes_a_codec_of_ones_own() -> None:
    codec = StdlibCodec()
    serializer = serializer_for("2.0.0", codec)
    assert isinstance(serializer, V2Serializer)
    assert serializer.codec is codec
    v1 = serializer_for("1.0.0", codec)
    assert isinstance(v1, V1Serializer)
    assert v1.codec is codec


def test_only_texts_of_the_second_version_are_decoded_together() -> None:
    class Own(V2Serializer):
        pass

    text, binary = wire.text("1", None, "room", "ev", {}), wire.binary_broadcast("room", "ev", b"")
    assert decoded_together(V2, [text, text]) == [Message("1", None, "room", "ev", {})] * 2
    assert V2.decode(binary) == Message(None, None, "room", "ev", b"")
    others: list[tuple[Serializer, list[Frame]]] = [(V2, [text, binary]), (V2, [binary]), (V1, [text]), (Own(), [text])]
    for serializer, frames in others:
        assert decoded_together(serializer, frames) is None
