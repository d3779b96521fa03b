"""Messages, and the frames that a server sends: good, odd and bad.

A good frame is what Phoenix sends. An odd one decodes too, but is unexpected: unknown refs, extra elements, payloads
of the wrong kind. A bad one is malformed: it is rejected, and the connection goes on.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

from ...protocol import MAX_DEPTH, Frame, Message
from ...protocol.message import CLOSE, ERROR, REPLY
from ..server.wire import Wire
from .values import binary_payloads, events, json_payloads, json_values, payloads, refs, statuses, topics

__all__ = ["bad_frames", "frames", "good_frames", "messages", "odd_frames"]

_TROUBLED_REPLIES: list[Any] = [
    *(None, {}, [], "ok", 5, True),
    *({"response": {}}, {"status": None}, {"status": 1}, {"status": ["ok"]}),
]
"""Payloads of a phx_reply without a status."""

_ENDS: Final = st.sampled_from([(CLOSE, dict[str, Any]()), (ERROR, {"reason": "channel_crash"})])


def messages(*, payload: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Message]:
    """Messages of all kinds, with any join_ref, ref, topic, event and payload (JSON, or bytes).

    Parameters:
        payload: the payloads; None: `payloads()`.
    """
    ref = st.none() | refs()
    return st.builds(Message, ref, ref, topics(), events(reserved=True), payloads() if payload is None else payload)


def good_frames(vsn: str = "2.0.0", *, topic: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Frame]:
    """Frames as Phoenix sends them: pushes, broadcasts, replies and ends of channels, in JSON and (vsn 2) in binary.

    Parameters:
        vsn: "2.0.0" or "1.0.0".
        topic: the topics; None: `topics()`.
    """
    wire = Wire(vsn)
    binary = st.nothing() if vsn.startswith("1.") else binary_payloads()
    name = topics() if topic is None else topic
    pushed = json_payloads() | json_values() | binary
    return st.one_of(
        st.builds(Message, refs(), st.none(), name, events(), pushed).map(wire.encode),
        st.builds(wire.encode_broadcast, name, events(reserved=True), pushed),
        st.builds(wire.encode_reply, st.none() | refs(), refs(), name, statuses(), json_payloads() | binary),
        st.builds(lambda ref, topic, end: Message(ref, ref, topic, *end), refs(), name, _ENDS).map(wire.encode),
    )


def odd_frames(vsn: str = "2.0.0", *, topic: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Frame]:
    """Unexpected frames that are valid.

    Replies without a status or to unknown refs, ends of unknown joins, payloads that are null, an array or text,
    duplicate keys, integers of 30 digits, extra elements, odd white space.

    Parameters:
        vsn: "2.0.0" or "1.0.0".
        topic: the topics; None: `topics()`.
    """
    name = topics() if topic is None else topic
    troubled = st.builds(Message, st.none() | refs(), refs(), name, st.just(REPLY), st.sampled_from(_TROUBLED_REPLIES))
    unexpected = st.builds(Message, st.none() | refs(), st.none() | refs(), name, events(reserved=True), json_values())
    if vsn.startswith("1."):
        texts = _json_texts((troubled | unexpected).map(_as_object))
        return texts | unexpected.map(_with_duplicate_key_v1)
    more = st.lists(json_values(), max_size=2)
    texts = _json_texts(st.builds(lambda message, more: [*message, *more], troubled | unexpected, more))
    return texts | unexpected.map(_with_duplicate_key)


def _json_texts(values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return st.builds(json.dumps, values, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 1]))


def _as_object(message: Message) -> dict[str, Any]:
    return {"topic": message.topic, "event": message.event, "payload": message.payload, "ref": message.ref}


def _with_duplicate_key(message: Message) -> str:
    names = json.dumps(list(message[:4]))
    return f'{names[:-1]},{{"a":1,"a":123456789012345678901234567890}}]'


def _with_duplicate_key_v1(message: Message) -> str:
    whole = json.dumps(_as_object(message._replace(payload=10**29)))
    return f'{whole[:-1]},"event":{json.dumps(message.event)}}}'


_TEXTS: Final[Mapping[str, list[str]]] = {
    "not_json": [
        *("not json", "", " ", "nul", "[", "]", '"', "'x'", "[1,]", '{"a":1,}'),
        *("[1 2]", "//", "[]x", "\ufeff[]"),
    ],
    "no_json_number": ["[NaN]", "[Infinity]", "[-Infinity]", "[1e999]", "01", "1.", "+1", "[" + "9" * 4301 + "]"],
    "surrogates": [r'["\ud800"]', r'["\udc00\ud800"]', r'{"\ud800":1}', "\ud800", '["\udfff"]'],
    "control_characters": ['["\x00"]', '["\t"]', "[]\x00", "\x0c[]"],
    "nested": ["[" * 2_000, "[" * 2_000 + "]" * 2_000, '{"a":' * 2_000, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)],
}
_NO_STRINGS: Final[list[Any]] = [5, 1.5, True, ["room"], {}]  # invalid as a ref, a topic or an event


# The kinds of binary frames from a server, and how many strings each has.
_KINDS: Final = st.sampled_from([(0, 3), (1, 4), (2, 2)])


@st.composite
def _wrong_type(draw: st.DrawFn) -> str:
    five: list[Any] = [draw(st.none() | refs()), draw(st.none() | refs()), draw(topics()), draw(events()), {}]
    slot = draw(st.integers(0, 3))
    bad = [*_NO_STRINGS, None] if slot >= 2 else _NO_STRINGS
    five[slot] = draw(st.sampled_from(bad))
    return json.dumps(five)


@st.composite
def _wrong_object(draw: st.DrawFn) -> str:
    message: dict[str, Any] = {"topic": draw(topics()), "event": draw(events()), "payload": {}, "ref": None}
    name = draw(st.sampled_from(["topic", "event", "ref", "payload"]))
    if name == "payload" or draw(st.booleans()):
        del message[name]
    else:
        message[name] = draw(st.sampled_from(_NO_STRINGS))
    return json.dumps(message)


@st.composite
def _truncated(draw: st.DrawFn) -> bytes:
    """A binary frame that ends inside of its lengths, or of the strings that they announce."""
    kind, count = draw(_KINDS)
    lengths = draw(st.lists(st.integers(1, 255), min_size=count, max_size=count))
    whole = bytes([kind, *lengths]) + b"x" * sum(lengths)
    return whole[: draw(st.integers(1, len(whole) - 1))]


@st.composite
def _no_utf8(draw: st.DrawFn) -> bytes:
    kind, count = draw(_KINDS)
    strings = draw(st.lists(st.sampled_from([b"1", b"room", "ä".encode()]), min_size=count, max_size=count))
    bad = draw(st.sampled_from([b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xe2\x98"]))
    strings[draw(st.integers(0, count - 1))] = bad
    return bytes([kind, *map(len, strings)]) + b"".join(strings) + draw(st.binary(max_size=4))


_JSON: Final[Mapping[str, st.SearchStrategy[Frame]]] = {name: st.sampled_from(texts) for name, texts in _TEXTS.items()}
_FIVE: Final[st.SearchStrategy[tuple[Any, ...]]] = st.tuples(
    st.none() | refs(), st.none() | refs(), topics(), events(reserved=True), st.just({})
)

TROUBLES_V2: Final[Mapping[str, st.SearchStrategy[Frame]]] = {
    **_JSON,
    "no_array": json_values().map(lambda value: json.dumps({"value": value})) | st.sampled_from(["null", "5", '"[]"']),
    "too_short": st.builds(lambda five, count: json.dumps(five[:count]), _FIVE, st.integers(0, 4)),
    "wrong_type": _wrong_type(),
    "empty_binary": st.just(b""),
    "unknown_kind": st.builds(lambda kind, rest: bytes([kind]) + rest, st.integers(3, 255), st.binary(max_size=20)),
    "truncated": _truncated(),
    "no_utf8": _no_utf8(),
}
"""Faults of frames of vsn 2.0.0, and frames that have them."""

TROUBLES_V1: Final[Mapping[str, st.SearchStrategy[Frame]]] = {
    **_JSON,
    "no_object": st.lists(json_values(), max_size=6).map(json.dumps) | st.sampled_from(["null", "5", '"{}"']),
    "wrong_object": _wrong_object(),
    "binary": json_payloads().map(json.dumps).map(str.encode) | st.binary(max_size=20),
}
"""Faults of frames of vsn 1.0.0, likewise."""


def bad_frames(vsn: str = "2.0.0") -> st.SearchStrategy[Frame]:
    """Malformed frames: each is rejected, and the connection goes on.

    Parameters:
        vsn: "2.0.0" or "1.0.0".
    """
    return st.one_of(*(TROUBLES_V1 if vsn.startswith("1.") else TROUBLES_V2).values())


def frames(vsn: str = "2.0.0", *, topic: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Frame]:
    """Frames of all kinds that a server may send, and a client must survive.

    Parameters:
        vsn: "2.0.0" or "1.0.0".
        topic: the topics of valid ones; None: `topics()`.
    """
    return good_frames(vsn, topic=topic) | odd_frames(vsn, topic=topic) | bad_frames(vsn)
