"""Names, payloads, messages, and the frames that a server sends: good, odd and bad; scripts of servers; bad networks.

A good frame is what Phoenix sends. An odd one decodes too, but is unexpected: unknown refs, extra elements, payloads
of the wrong kind. A bad one is malformed: it is rejected, and the connection goes on.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st

from ...protocol import MAX_DEPTH, Frame, Message
from ...protocol.message import CLOSE, ERROR, HEARTBEAT, PHOENIX, REPLY, RESERVED_EVENTS
from ...protocol.serializer import BROADCAST, PUSH, REPLY_KIND
from .. import faults as net
from ..scripted import Act, ServerScript
from ..server.wire import Wire

__all__ = [
    "bad_frames", "binary_payloads", "events", "faults", "frames", "good_frames", "json_payloads", "json_scalars",
    "json_values", "messages", "odd_frames", "payloads", "refs", "server_scripts", "statuses", "topics",
]  # fmt: skip

LONGEST_NAME = 255  # the most bytes of a topic, an event or a ref in a binary frame


def _text() -> st.SearchStrategy[str]:
    """Text that is UTF-8 (no lone surrogates), and short enough for a binary frame."""
    return st.text(st.characters(codec="utf-8"), max_size=8)


def topics() -> st.SearchStrategy[str]:
    """Topics, plain ones first; also empty, long and non-ASCII ones. All of them fit a binary frame."""
    odd = ["", ":", "room:", "räume:☃", "room:😀", "x" * LONGEST_NAME, "\x00", PHOENIX, "room:*"]
    return st.sampled_from(["room:lobby", "room:1", "a", "a:b:c"]) | st.sampled_from(odd) | _text()


def events(*, reserved: bool = False) -> st.SearchStrategy[str]:
    """Names of events, plain ones first; also empty, long and non-ASCII ones.

    Parameters:
        reserved: whether "phx_reply", "phx_close" and the other reserved names are among them. An
            application can broadcast such an event; a client cannot push it.
    """
    unreserved = _text().map(lambda event: f"_{event}" if event in RESERVED_EVENTS else event)
    odd = st.sampled_from(["", "ä", "☃", "e" * LONGEST_NAME, HEARTBEAT, "phx_", "phx_unknown"])
    plain = st.sampled_from(["new_msg", "tick", "presence_state", "presence_diff"]) | odd | unreserved
    return plain | st.sampled_from(sorted(RESERVED_EVENTS)) if reserved else plain


def refs() -> st.SearchStrategy[str]:
    """Refs as clients make them: decimal strings from "1" on; most are low, so that they meet those in use."""
    return (st.integers(1, 9) | st.integers(1, 2**63)).map(str)


def statuses() -> st.SearchStrategy[str]:
    """Statuses of replies: "ok" and "error" mostly, but any string may be one."""
    return st.sampled_from(["ok", "ok", "error", "error", "", "OK", "later"]) | _text()


def json_scalars() -> st.SearchStrategy[Any]:
    """JSON values without parts: null, booleans, numbers (large integers too) and text."""
    numbers = st.integers() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    return st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8"))


def json_values() -> st.SearchStrategy[Any]:
    """JSON values of all kinds, nested a few levels deep: every payload that both codecs accept."""
    keys = st.text(st.characters(codec="utf-8"))

    def nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)

    return st.recursive(json_scalars(), nest, max_leaves=8)


def json_payloads() -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects, as most applications push; an empty one is the simplest."""
    keys = st.sampled_from(["body", "n", "user"]) | st.text(st.characters(codec="utf-8"), max_size=8)
    return st.dictionaries(keys, json_values(), max_size=4)


def binary_payloads() -> st.SearchStrategy[bytes]:
    """Payloads of binary frames."""
    return st.binary(max_size=300)


def payloads() -> st.SearchStrategy[Any]:
    """Payloads for vsn 2.0.0: JSON objects mostly, any other JSON value, and bytes."""
    return json_payloads() | json_values() | binary_payloads()


_UNTOLD: list[Any] = [None, {}, [], "ok", 5, True, {"response": {}}, *({"status": no} for no in (None, 1, ["ok"]))]
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
        st.builds(Message, st.none(), st.none(), name, events(reserved=True), pushed).map(wire.encode),
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
    troubled = st.builds(Message, st.none() | refs(), refs(), name, st.just(REPLY), st.sampled_from(_UNTOLD))
    unexpected = st.builds(Message, st.none() | refs(), st.none() | refs(), name, events(reserved=True), json_values())
    if vsn.startswith("1."):
        return _json_texts((troubled | unexpected).map(lambda it: dict(zip(Message._fields[1:], it[1:], strict=True))))
    more = st.lists(json_values(), max_size=2)
    texts = _json_texts(st.builds(lambda message, more: [*message, *more], troubled | unexpected, more))
    repeated = '{"a":1,"a":123456789012345678901234567890}'
    return texts | unexpected.map(lambda message: f"{json.dumps(message[:4])[:-1]},{repeated}]")


def _json_texts(values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return st.builds(json.dumps, values, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 1]))


_TEXTS: Final = {
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
_JSON: Final[Mapping[str, st.SearchStrategy[Frame]]] = {name: st.sampled_from(texts) for name, texts in _TEXTS.items()}
_REF: Final = st.none() | refs()
_FIVE: Final = st.tuples(_REF, _REF, topics(), events(reserved=True), st.just(dict[str, Any]()))
_OBJECT: Final = st.fixed_dictionaries({"topic": topics(), "event": events(), "payload": st.just({}), "ref": st.none()})
_KINDS: Final = {2: BROADCAST, 3: PUSH, 4: REPLY_KIND}  # of binary frames from a server, by how many strings each has
_STRINGS: Final = st.lists(st.sampled_from([b"1", b"room", "ä".encode(), b"x" * LONGEST_NAME]), min_size=2, max_size=4)
_NO_UTF8: Final = st.sampled_from([b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xe2\x98"])


def _replaced(parts: Sequence[Any], at: int, bad: Any) -> list[Any]:
    at %= len(parts)
    return [*parts[:at], bad, *parts[at + 1 :]]


def _binary(strings: Sequence[bytes], payload: bytes = b"") -> bytes:
    return b"".join([bytes([_KINDS[len(strings)], *map(len, strings)]), *strings, payload])


TROUBLES_V2: Final[Mapping[str, st.SearchStrategy[Frame]]] = {
    **_JSON,
    "no_array": json_values().map(lambda value: json.dumps({"value": value})) | st.sampled_from(["null", "5", '"[]"']),
    "too_short": st.builds(lambda five, count: json.dumps(five[:count]), _FIVE, st.integers(0, 4)),
    "wrong_type": st.one_of(
        st.builds(_replaced, _FIVE, st.integers(0, 3), st.sampled_from(_NO_STRINGS)),
        st.builds(_replaced, _FIVE, st.integers(2, 3), st.none()),
    ).map(json.dumps),
    "empty_binary": st.just(b""),
    "unknown_kind": st.builds(lambda kind, rest: bytes([kind]) + rest, st.integers(3, 255), st.binary(max_size=20)),
    # It ends inside of its lengths, or of the strings that they announce.
    "truncated": st.builds(
        lambda frame, at: frame[: 1 + at % (len(frame) - 1)], _STRINGS.map(_binary), st.integers(0, 1_000)
    ),
    "no_utf8": st.builds(_binary, st.builds(_replaced, _STRINGS, st.integers(0, 3), _NO_UTF8), st.binary(max_size=4)),
}
"""Faults of frames of vsn 2.0.0, and frames that have them."""

TROUBLES_V1: Final[Mapping[str, st.SearchStrategy[Frame]]] = {
    **_JSON,
    "no_object": st.lists(json_values(), max_size=6).map(json.dumps) | st.sampled_from(["null", "5", '"{}"']),
    "wrong_object": st.one_of(
        st.permutations(["topic", "event", "ref", "payload"]).map(lambda names: dict.fromkeys(names[1:], "")),
        st.builds(
            lambda message, name, bad: {**message, name: bad},
            _OBJECT,
            st.sampled_from(["topic", "event", "ref"]),
            st.sampled_from(_NO_STRINGS),
        ),
    ).map(json.dumps),
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


# Servers and networks

_PAYLOADS: Final = json_payloads() | binary_payloads()
# No text frame can have lone surrogates.
_SENDABLE: Final = frames().map(lambda frame: frame.encode(errors="replace").decode() if type(frame) is str else frame)
_ACTS: Final = st.one_of(
    st.builds(Act, st.just("reply"), st.tuples(statuses(), _PAYLOADS)),
    st.builds(Act, st.just("push"), st.tuples(events(), _PAYLOADS)),
    st.builds(Act, st.just("burst"), st.integers(1, 12)),
    st.builds(Act, st.just("broadcast"), st.tuples(events(reserved=True), json_payloads())),
    st.builds(Act, st.just("sleep"), st.sampled_from([0.1, 0.5, 4.0])),
    st.builds(Act, st.just("raw"), _SENDABLE),
    st.sampled_from([Act("ping"), Act("stop"), Act("crash"), Act("drop")]),
    st.builds(Act, st.just("close"), st.sampled_from([1000, 1001, 1011, 1012, 4000])),
)


def server_scripts() -> st.SearchStrategy[ServerScript]:
    """Scripts of a server: upgrades, joins accepted, refused and slow, replies in any order and number, ends.

    The plainest is that of a server that accepts all and echoes. Refused upgrades are worth another attempt.
    """
    return st.builds(
        ServerScript,
        st.lists(st.sampled_from([None, 503, 429, 500]), max_size=2),
        st.lists(st.sampled_from(["accept", "accept", "accept", "refuse", "slow", "crash", "crash_after"]), max_size=6),
        st.lists(st.lists(_ACTS, max_size=3), max_size=12),
    )


_LINKS: Final = st.builds(
    net.Link,
    st.sampled_from([0.0, 0.01, 0.3]),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([None, 100_000.0, 2_000.0]),
    st.sampled_from([65_536, 1_024]),
)
_SHARES: Final = st.sampled_from([0.0, 0.5, 1.0, 0.25, 0.9])
_MOMENTS: Final = st.one_of(
    st.builds(net.AtFrame, st.integers(1, 12), _SHARES),
    st.builds(net.AtByte, st.integers(0, 2_000)),
    st.builds(net.AtTime, st.sampled_from([0.0, 0.1, 1.0, 10.0, 60.0])),
    st.builds(net.EachFrame, st.sampled_from([0.01, 0.1]), st.none() | _SHARES),
    st.builds(net.EachByte, st.sampled_from([0.0001, 0.001])),
)
_OPENING: Final = st.sampled_from([net.Refuse(), net.SlowOpening(0.5), net.SlowOpening(2.0, 1.0), net.Ignore()])
_LATER: Final = st.one_of(
    st.sampled_from([net.Reset(), net.Truncate(), net.Vanish(), net.Vanish(both=False)]),
    st.sampled_from([net.Stall(1.0), net.Stall(30.0, both=True)]),
    st.builds(net.Corrupt, st.integers(1, 20)),
)
_OF: Final = st.integers(1, 3).map(lambda number: (number,))
_RULES: Final = st.one_of(
    # Hypothesis takes one object but once, and these are to come twice as often.
    *(st.builds(net.Rule, _LATER, _MOMENTS, st.sampled_from(["client", "server"]), _OF) for _ in range(2)),
    st.builds(net.Rule, _OPENING, st.none(), st.just("client"), _OF),
)


def faults() -> st.SearchStrategy[net.Faults]:
    """Schedules of a network's faults: resets, stalls, silence, damaged bytes, refused and slow openings, slow links.

    The plainest has none. Each holds for one of the first three connections, so that the network is good in the end.
    """
    return st.builds(net.Faults, st.integers(0, 2**16), _LINKS, _LINKS, st.lists(_RULES, max_size=4))
