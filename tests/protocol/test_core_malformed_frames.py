"""One bad frame costs that frame: the state stays the same object, and nothing is sent."""

import json
from typing import Any

import pytest
from tests.naming import short
from tests.protocol import wire
from tests.protocol.core import Core, only

from slipstream_trio.protocol import (
    MAX_DEPTH,
    Codec,
    Frame,
    FrameReceived,
    FrameRejected,
    Message,
    MessageReceived,
    StdlibCodec,
    V1Serializer,
    V2Serializer,
    default_codec,
)

CODECS: list[Codec] = [StdlibCodec()]
if default_codec().name != StdlibCodec.name:
    CODECS.append(default_codec())

NOT_JSON: list[Frame] = [
    *("not json", "", " ", "\ufeff[]", "nul", "[", "]", '"', "'x'", "[1,]", '{"a":1,}', "[1 2]"),
    *("01", "1.", "+1", "//", "[]\x00", "[]x", '["\t"]', '["\x00"]'),
    *("[NaN]", "[Infinity]", "[-Infinity]", "[1e999]", "[-1e999]", "[1" + "0" * 400 + ".0]"),
    *(r'["\ud800"]', r'["\udc00\ud800"]', r'["\uD800x"]', r'{"\ud800":1}', r'["\x41"]', r'["\u12"]'),
    *("\ud800", '["\ud800"]', '{"\udfff":1}'),
    *("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000, "[" + "9" * 4301 + "]"),
    *("[" * 5_000 + '"' + r"\"" * 100_000, "{" * 200 + '"' + "\\"),
]
NO_V2_MESSAGE: list[Frame] = [
    *("{}", "[]", "null", "5", '"text"', "true", "[1,2]", '[null,null,"room","ev"]', "[null,null,5,6,7]"),
    *('[null,null,"room",null,{}]', '[null,null,null,"ev",{}]', '[null,null,["room"],"ev",{}]'),
    *(
        '[1,null,"room","ev",{}]',
        '["1",2,"room","ev",{}]',
        '[true,null,"room","ev",{}]',
        '[{},null,"room","ev",{}]',
    ),
    *(
        '["1",[],"room","ev",{}]',
        '["1",1.5,"room","ev",{}]',
        '["1",null,"room",{},{}]',
        '["1",null,false,"ev",{}]',
    ),
    '{"topic":"room","event":"ev","payload":{},"ref":null}',
]
NO_REPLY_PAYLOADS: list[Any] = [
    *(None, {}, [], "ok", 5, True),
    *({"response": {}}, {"status": None}, {"status": 1}, {"status": ["ok"]}),
]
NO_REPLY: list[Frame] = [wire.text("1", "2", "room", "phx_reply", payload) for payload in NO_REPLY_PAYLOADS]
NO_BINARY: list[Frame] = [
    *(
        b"",
        b"\x00",
        b"\x01",
        b"\x02",
        b"\x03",
        b"\x05\x01\x01\x01\x01abcd",
        b"\xff" * 300,
        b"not json",
        b"[]",
    ),
    *(b"\x00\x01", b"\x00\x01\x01", b"\x00\x01\x04\x02", b"\x00\x01\x04\x021room", b"\x00\x01\x04\x021roome"),
    *(
        b"\x01\x01\x01\x04",
        b"\x01\x01\x01\x04\x0211roomo",
        b"\x02\x04",
        b"\x02\x04\x02roome",
        b"\x02\xff\xffshort",
    ),
    *(
        b"\x02\x04\x02\xff\xfe\xfd\xfcev",
        b"\x00\x01\x04\x021room\xc3\x28",
        b"\x01\x01\x01\x04\x021\xc0roomok",
    ),
]
V1_MESSAGE: dict[str, Any] = {"topic": "room", "event": "ev", "payload": {}, "ref": None}
NO_STRINGS: list[Any] = [5, 1.5, True, ["room"], {}]
NO_V1_MESSAGE: list[Frame] = [
    *("{}", "[]", "null", "5", '"text"', '[null,null,"room","ev",{}]'),
    *(json.dumps({key: V1_MESSAGE[key] for key in V1_MESSAGE if key != missing}) for missing in V1_MESSAGE),
    *(json.dumps({**V1_MESSAGE, name: bad}) for name in ("topic", "event", "ref") for bad in NO_STRINGS),
    *(json.dumps({**V1_MESSAGE, name: None}) for name in ("topic", "event")),
    json.dumps({**V1_MESSAGE, "event": "phx_reply", "ref": "1"}),
    json.dumps({**V1_MESSAGE, "event": "phx_reply", "ref": "1", "payload": None}),
]


@pytest.fixture(params=CODECS, ids=lambda codec: codec.name)
def codec(request: pytest.FixtureRequest) -> Codec:
    chosen: Codec = request.param
    return chosen


def busy(core: Core) -> Core:
    """Have something of everything that a bad frame might touch."""
    core.join("room")
    core.join("pending")
    core.join("left")
    core.leave("left")
    core.heartbeat()
    return core


def check_rejected(core: Core, frame: Frame) -> None:
    received = FrameReceived(0.0, frame)
    transition = core.feed_idle(received)
    event = only(transition)
    assert isinstance(event, FrameRejected)
    assert event.reason
    assert len(event.reason.splitlines()) == 1
    assert len(event.reason) < 200
    assert transition.message is received


@pytest.mark.parametrize("frame", [*NOT_JSON, *NO_V2_MESSAGE, *NO_REPLY, *NO_BINARY], ids=short)
def test_a_malformed_v2_frame_costs_that_frame(frame: Frame, codec: Codec) -> None:
    check_rejected(busy(Core(serializer=V2Serializer(codec))), frame)


@pytest.mark.parametrize("frame", [*NOT_JSON, *NO_V1_MESSAGE, b"", b"\x02\x04\x02roomev"], ids=short)
def test_a_malformed_v1_frame_costs_that_frame(frame: Frame, codec: Codec) -> None:
    check_rejected(busy(Core(vsn="1.0.0", serializer=V1Serializer(codec))), frame)


def test_a_reply_without_a_status_is_named() -> None:
    transition = Core().receive(None, "1", "room", "phx_reply", {})
    assert only(transition) == FrameRejected("a phx_reply whose payload has no status")


def test_the_connection_goes_on_after_bad_frames() -> None:
    core = Core()
    ref = core.joined()
    for frame in [*NOT_JSON, *NO_V2_MESSAGE, *NO_REPLY, *NO_BINARY]:
        check_rejected(core, frame)
    message = Message(ref, None, "room", "ev", {})
    assert only(core.receive_idle(*message)) == MessageReceived(message)
    assert core.push() == "2"


@pytest.mark.parametrize(
    ("frame", "payload"),
    [
        ('["1",null,"room","ev",{"a":1,"a":2}]', {"a": 2}),
        ('["1",null,"room","ev",123456789012345678901234567890]', 123456789012345678901234567890),
        ('["1",null,"room","ev",{},"extra",[{}]]', {}),
        (' [ "1" ,\tnull,\r\n"room","ev", {} ] ', {}),
        ('["1",null,"room","ev","' + "[{" * 200 + '"]', "[{" * 200),
        ('["1",null,"room","ev","' + r"\"[" * 200 + '"]', '"[' * 200),
        (r'["1",null,"room","ev","\ud83d\ude00 \\ud800 \u0000"]', "\U0001f600 \\ud800 \x00"),
        ('["1",null,"room","ev",[' + "[]," * 200 + "{}]]", [*([[]] * 200), {}]),
        ('["1",null,"room","ev",' + "9" * 4300 + "]", 10**4300 - 1),
    ],
    ids=short,
)
def test_odd_frames_that_are_messages_are_received(frame: str, payload: Any, codec: Codec) -> None:
    core = Core(serializer=V2Serializer(codec))
    assert core.joined() == "1"
    event = only(core.feed_idle(FrameReceived(0.0, frame)))
    assert event == MessageReceived(Message("1", None, "room", "ev", payload))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[0,{"k":', "}]")])
def test_a_frame_may_be_nested_up_to_the_limit(opening: str, closing: str, codec: Codec) -> None:
    core = Core(serializer=V2Serializer(codec))
    core.joined()
    turns = (MAX_DEPTH - 1) // len(closing)
    deepest = f'["1",null,"room","ev",{opening * turns}0{closing * turns}]'
    assert isinstance(only(core.feed_idle(FrameReceived(0.0, deepest))), MessageReceived)
    check_rejected(core, f'["1",null,"room","ev",{opening * (turns + 1)}0{closing * (turns + 1)}]')
