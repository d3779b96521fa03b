"""Supabase's serializer: its two binary kinds, there and back, whole and damaged; all else as Phoenix's."""

import json
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, strategies as st
from tests.integrations.supabase_server import SupabaseWire, UserBroadcast

from slipstream_trio import Message, ProtocolError, SerializationError
from slipstream_trio.integrations.supabase import SupabaseSerializer
from slipstream_trio.protocol import MsgspecCodec, StdlibCodec, V2Serializer
from slipstream_trio.testing import strategies

CODECS: list[Any] = [StdlibCodec, *([MsgspecCodec] if find_spec("msgspec") else [])]
SERIALIZERS = [SupabaseSerializer(codec()) for codec in CODECS]
short = st.text(st.characters(codec="utf-8"), max_size=60)
refs = st.none() | st.integers(1, 10**9).map(str)
payloads = strategies.json_values() | st.binary()


def broadcast(event: str, payload: Any, **more: Any) -> dict[str, Any]:
    return {"type": "broadcast", "event": event, "payload": payload, **more}


@pytest.mark.parametrize("serializer", SERIALIZERS, ids=[codec.__name__ for codec in CODECS])
@given(join_ref=refs, ref=refs, topic=short, event=short, payload=payloads)
def test_a_servers_reader_reads_a_push(
    serializer: SupabaseSerializer, join_ref: str | None, ref: str | None, topic: str, event: str, payload: Any
) -> None:
    frame = serializer.encode(Message(join_ref, ref, topic, "broadcast", broadcast(event, payload)))
    assert isinstance(frame, bytes)
    assert frame[0] == 3
    read = SupabaseWire().decode(frame)
    assert (read.join_ref, read.ref, read.topic, read.event) == (join_ref or "", ref or "", topic, "broadcast")
    assert (read.payload.event, read.payload.meta) == (event, {})
    assert read.payload.is_json == (not isinstance(payload, bytes))
    assert (json.loads(read.payload.body) if read.payload.is_json else read.payload.body) == payload


@pytest.mark.parametrize("serializer", SERIALIZERS, ids=[codec.__name__ for codec in CODECS])
@given(
    topic=short, event=short, payload=payloads, id_=st.none() | short.filter(lambda text: len(json.dumps(text)) < 200)
)
def test_a_broadcast_is_read_as_its_server_wrote_it(
    serializer: SupabaseSerializer, topic: str, event: str, payload: Any, id_: str | None
) -> None:
    meta = {} if id_ is None else {"id": id_, "replayed": True}
    is_json = not isinstance(payload, bytes)
    body = json.dumps(payload).encode() if is_json else payload
    frame = SupabaseWire().encode(Message(None, None, topic, "broadcast", UserBroadcast(event, body, is_json, meta)))
    assert frame[0] == 4
    expected = broadcast(event, payload, **({"meta": meta} if meta else {}))
    assert serializer.decode(frame) == Message(None, None, topic, "broadcast", expected)


@pytest.mark.parametrize("serializer", SERIALIZERS, ids=[codec.__name__ for codec in CODECS])
@given(rest=st.binary(max_size=40), start=st.binary(max_size=4))
def test_a_damaged_broadcast_is_a_bad_frame_or_a_message(
    serializer: SupabaseSerializer, rest: bytes, start: bytes
) -> None:
    try:
        message = serializer.decode(b"\x04" + start + rest)
    except ProtocolError:
        return
    assert message.event == "broadcast"
    assert message.payload["type"] == "broadcast"


@given(cut=st.integers(1, 22), payload=st.binary(min_size=1))
def test_a_broadcast_that_is_cut_off_in_its_header_is_a_bad_frame(cut: int, payload: bytes) -> None:
    message = Message(None, None, "realtime:r", "broadcast", UserBroadcast("hi", payload, is_json=False, meta={"n": 1}))
    frame = SupabaseWire().encode(message)
    assert isinstance(frame, bytes)
    with pytest.raises(ProtocolError, match="inside its header"):
        SERIALIZERS[0].decode(frame[:cut])


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (b"\x04\x01\x01\x00\x02te", "unknown encoding"),
        (b"\x04\x01\x01\x00\x01te{", "not JSON"),
        (b"\x04\x01\x01\x00\x01te", "not JSON"),
        (b"\x04\x01\x01\x00\x01te\xff", "UTF-8"),
        (b"\x04\x01\x01\x00\x00\xffe", "UTF-8"),
        (b"\x04\x01\x01\x01\x00te{", "not JSON"),
        (b"\x05", "kind 5"),
        (b"", "empty"),
    ],
)
def test_each_fault_has_its_sentence(frame: bytes, problem: str) -> None:
    with pytest.raises(ProtocolError, match=problem):
        SERIALIZERS[0].decode(frame)


@given(event=strategies.events(), payload=payloads | st.just({"event": "x"}))
def test_everything_else_is_as_phoenix_has_it(event: str, payload: Any) -> None:
    message = Message("1", "2", "realtime:room", event, payload)
    assert SERIALIZERS[0].encode(message) == V2Serializer(StdlibCodec()).encode(message)
    text = json.dumps(["1", None, "realtime:room", event, {}])
    assert SERIALIZERS[0].decode(text) == V2Serializer().decode(text)


@pytest.mark.parametrize(
    "payload",
    [{}, {"event": "x"}, broadcast("x", 1, other=2), {**broadcast("x", 1), "type": "y"}, broadcast(1, 1)],  # type: ignore[arg-type]
)
def test_a_broadcast_that_the_kind_has_no_place_for_goes_as_text(payload: Any) -> None:
    frame = SERIALIZERS[0].encode(Message("1", "2", "realtime:room", "broadcast", payload))
    assert json.loads(frame)[4] == payload


@pytest.mark.parametrize(
    ("topic", "event", "payload", "place"),
    [
        ("t", "e", {"a": [object()]}, 'payload["payload"]["a"][0]'),
        ("t", "\ud800", 1, "payload"),
        ("\ud800", "e", b"x", "topic"),
        ("t", "e" * 256, b"x", ""),
    ],
)
def test_what_cannot_be_sent_says_where(topic: str, event: str, payload: Any, place: str) -> None:
    with pytest.raises(SerializationError) as raised:
        SERIALIZERS[0].encode(Message("1", "2", topic, "broadcast", broadcast(event, payload)))
    assert raised.value.path.startswith(place)
