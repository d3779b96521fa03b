"""Both codecs accept the same and give the same, so that installing msgspec changes speed alone."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st
from tests.drawing import examples
from tests.protocol.json_texts import UNSENDABLE, exactly, json_texts

from slipstream_trio.errors import ProtocolError, SerializationError
from slipstream_trio.protocol import MAX_DEPTH, Codec, Message, MsgspecCodec, StdlibCodec, V2Serializer
from slipstream_trio.protocol.codec import SHALLOW
from slipstream_trio.protocol.serializer import decoded_together
from slipstream_trio.testing.strategies import json_scalars, json_values, messages

pytest.importorskip("msgspec", reason="msgspec, an extra, is not installed: there is nothing to agree with")

STDLIB = StdlibCodec()
MSGSPEC = MsgspecCodec()

MESSAGES = messages(payload=json_values())
TRICKY = ["", "[[", "]]", "{", "}", '"', '"[', "\\", '\\"', '\\\\"]', "\n[", "é", "\U0001f600{", "ud800"]
EDGES = [*range(SHALLOW - 1, SHALLOW + 4), *range(MAX_DEPTH - 2, MAX_DEPTH + 3), 2 * MAX_DEPTH]
UNSENDABLE_VALUES = st.integers(0, len(UNSENDABLE) - 1).map(lambda index: UNSENDABLE[index])  # some have no repr


@st.composite
def levels(draw: st.DrawFn) -> tuple[Any, int]:
    """A value that is nested so deep, beside strings that look like nesting; and how deep."""
    tricky = st.sampled_from(TRICKY)
    kinds = draw(st.lists(st.tuples(st.integers(0, 3), tricky, tricky), min_size=1, max_size=6))
    value: Any = [draw(tricky)]
    depth = draw(st.sampled_from(EDGES) | st.integers(1, 2 * MAX_DEPTH))
    for level in range(depth - 1):
        kind, before, after = kinds[level % len(kinds)]
        value = [[value], [before, value, after, []], {before: value}, {before: [before], after: value}][kind]
    return value, depth


def decoded(codec: Codec, text: str) -> Any:
    try:
        return exactly(codec.decode(text))
    except ProtocolError:
        return "refused"


def decoded_message(codec: Codec, text: str) -> Any:
    try:
        message = codec.decode_message(text)
    except ProtocolError:
        return "refused"
    assert type(message) is Message
    return exactly(message)


def encoded(codec: Codec, value: Any) -> Any:
    try:
        return codec.encode(value)
    except SerializationError:
        return None


@examples(300)
@given(json_texts())
def test_both_codecs_decode_the_same_texts_to_the_same_values(text: str) -> None:
    assert decoded(STDLIB, text) == decoded(MSGSPEC, text)


@examples(300)
@given(json_texts() | MESSAGES.map(json.dumps))
def test_both_codecs_decode_the_same_messages(text: str) -> None:
    assert decoded_message(STDLIB, text) == decoded_message(MSGSPEC, text)


@examples(300)
@given(levels(), st.booleans(), st.sampled_from([None, 1]), st.sampled_from(["", ",0", ',"[[",[]']))
def test_both_codecs_refuse_what_is_too_deep_and_nothing_else(
    nested: tuple[Any, int], ascii_only: bool, indent: int | None, more: str
) -> None:
    value, depth = nested
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    frame = f'["1",null,"room","[{{",{text}{more}]'
    for codec in (STDLIB, MSGSPEC):
        for decode, given_text, expected, deep in (
            (codec.decode, text, value, depth),
            (codec.decode_message, frame, Message("1", None, "room", "[{", value), depth + 1),
        ):
            if deep <= MAX_DEPTH:
                assert decode(given_text) == expected
            else:
                with pytest.raises(ProtocolError, match=f"nested deeper than {MAX_DEPTH}$"):
                    decode(given_text)


@examples(150)
@given(MESSAGES, st.lists(json_values(), max_size=2), st.booleans())
def test_every_message_is_decoded(message: Any, more: list[Any], ascii_only: bool) -> None:
    text = json.dumps([*message, *more], ensure_ascii=ascii_only)
    fits = all(isinstance(slot, str) for slot in message[2:4])
    assert fits
    for codec in (STDLIB, MSGSPEC):
        assert exactly(codec.decode_message(text)) == exactly(Message(*message))


def framed(text: str, depth: int, *more: str) -> str:
    """Return a frame whose payload is a text, and brackets so deep."""
    payload = f"[{json.dumps(text)},{'[' * (depth - 2)}{']' * (depth - 2)}]" if depth > 2 else json.dumps([text])
    return f"[{','.join(['null', 'null', json.dumps('room'), json.dumps('ev'), payload, *more])}]"


LONG = "long" * MAX_DEPTH
FRAMES = st.builds(
    lambda text, depth, more: framed(text, depth, *map(json.dumps, more)),
    st.sampled_from(["", LONG]),
    st.sampled_from(EDGES),
    st.lists(json_values(), max_size=1),
)


def check_together(frames: list[str]) -> None:
    each = [decoded_message(STDLIB, frame) for frame in frames]
    for codec in (STDLIB, MSGSPEC):
        together = decoded_together(V2Serializer(codec), frames)
        assert (together is None) == ("refused" in each)
        if together is not None:
            assert set(map(type, together)) == {Message}
            assert [exactly(message) for message in together] == each


@pytest.mark.parametrize("text", ["", LONG])
@pytest.mark.parametrize("more", [(), ("1",)])
@pytest.mark.parametrize("depth", EDGES)
def test_frames_that_are_decoded_together_may_be_long_and_deep(text: str, more: tuple[str, ...], depth: int) -> None:
    check_together([framed("", 1), framed(text, depth, *more)])
    check_together([framed(text, depth, *more)] * 2)


@examples(150)
@given(st.lists(MESSAGES.map(json.dumps) | FRAMES | json_texts(), min_size=1, max_size=4))
def test_frames_that_are_decoded_together_are_what_each_of_them_is(frames: list[str]) -> None:
    check_together(frames)


@examples(250)
@given(json_values())
def test_what_one_codec_encodes_both_decode(value: Any) -> None:
    for encoder in (STDLIB, MSGSPEC):
        text = encoder.encode(value)
        for decoder in (STDLIB, MSGSPEC):
            assert exactly(decoder.decode(text)) == exactly(value)


@examples(150)
@given(
    st.recursive(
        UNSENDABLE_VALUES | json_scalars(),
        lambda inner: st.lists(inner) | st.fixed_dictionaries({"k": inner}),
        max_leaves=4,
    )
)
def test_both_codecs_encode_the_same_values(value: Any) -> None:
    texts = [encoded(codec, value) for codec in (STDLIB, MSGSPEC)]
    assert (texts[0] is None) == (texts[1] is None)
    if texts[0] is not None:
        assert exactly(json.loads(texts[0])) == exactly(json.loads(texts[1])) == exactly(value)
