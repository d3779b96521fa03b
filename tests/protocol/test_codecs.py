"""What a codec takes and gives, and what it refuses."""

import inspect
import json
import sys
import time
import tracemalloc
from typing import Any

import pytest
from tests.naming import short
from tests.protocol.json_texts import UNSENDABLE, exactly, nested

from slipstream_trio.errors import ProtocolError, SerializationError
from slipstream_trio.protocol import MAX_DEPTH, Codec, MsgspecCodec, StdlibCodec, default_codec
from slipstream_trio.protocol.codec import check_depth

CODECS: list[type[Codec]] = [StdlibCodec]
if default_codec().name != StdlibCodec.name:
    CODECS.append(MsgspecCodec)
both = pytest.mark.parametrize("codec", CODECS, indirect=True, ids=lambda codec: codec.name)


@pytest.fixture
def codec(request: pytest.FixtureRequest) -> Codec:
    """Return a new codec: how it is made is under test too."""
    made: Codec = request.param()
    return made


@both
@pytest.mark.parametrize("value", UNSENDABLE, ids=lambda value: type(value).__name__)
def test_what_is_not_json_is_not_encoded_at_any_place(codec: Codec, value: Any) -> None:
    for given_value in (value, [value], {"a": [1, {"b": value}]}):
        with pytest.raises(SerializationError) as caught:
            codec.encode(given_value)
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 200


@both
def test_what_is_too_much_to_print_is_not_encoded(codec: Codec) -> None:
    for value in (nested(5_000), 10**4300, -(10**4300)):
        with pytest.raises(SerializationError):
            codec.encode([value])


@both
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1" + "0" * 4299, 10**4299),
        ("-1" + "0" * 4298, -(10**4298)),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("-9223372036854775809", -9223372036854775809),
        ("18446744073709551616", 18446744073709551616),
        ("1.7976931348623157e308", sys.float_info.max),
        ("5e-324", 5e-324),
        ("1e-400", 0.0),
        ("-0", 0),
        ("-0.0", -0.0),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"\\ud800"', "\\ud800"),
        (r'"\u0000\/"', "\x00/"),
        ('"\x7f\u2028"', "\x7f\u2028"),
        ('{"a":1,"a":2}', {"a": 2}),
        (" \t\r\n1 ", 1),
    ],
    ids=short,
)
def test_odd_texts_that_are_json(codec: Codec, text: str, value: Any) -> None:
    assert exactly(codec.decode(text)) == exactly(value)


@both
@pytest.mark.parametrize(
    "text",
    [
        *("9" * 4301, "-" + "9" * 4300, "1e400", "-1e400", "9" * 400 + ".0", "NaN", "Infinity", "-Infinity"),
        *('"\\ud800"', '{"\\udc00":1}', '"\\uDBFF"', '"\ud800"', '{"\udfff":1}', "\ud800", "\ufeff1", '"\x1f"'),
        *("", " ", "01", "1.", "[1,]", '{"a":1,}', "1 2", "\u0661", "\xa01", "\x0c1"),
    ],
    ids=short,
)
def test_texts_that_are_not_json(codec: Codec, text: str) -> None:
    for refuse in (codec.decode, codec.decode_message):
        with pytest.raises(ProtocolError) as caught:
            refuse(text)
        assert len(caught.value.problem.splitlines()) == 1
        assert len(caught.value.problem) < 200


@both
@pytest.mark.parametrize("bad", ["NaN", "-Infinity", "1e999", "-" + "9" * 4300])
def test_a_long_text_is_checked_as_a_short_one_is(codec: Codec, bad: str) -> None:
    long = "0," * 5_000
    assert codec.decode(f"[{long}1.5]")[-1] == 1.5
    with pytest.raises(ProtocolError):
        codec.decode(f"[{long}{bad}]")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1e999]", "not JSON: a number beyond the range of a float"),
        ("[NaN]", "not JSON: NaN is not JSON"),
        ("[-Infinity]", "not JSON: -Infinity is not JSON"),
        (f"[-{'9' * 4300}]", "not JSON: an integer of more than 4300 characters"),
        (r'["\ud800"]', "not JSON: a lone surrogate"),
    ],
    ids=short,
)
def test_the_standard_librarys_codec_says_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        StdlibCodec().decode(text)
    assert caught.value.problem == problem


@both
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("\ud800", "not a JSON value: .*surrogate"),
        (float("nan"), "nan is not a JSON number: use a finite one, or None$"),
        ({1: 2}, "an object's keys are strings; a key of type int is not$"),
        ((1, 2), "tuple is not a JSON type: use dict, list, str, int, float, bool or None, or bytes as the payload$"),
    ],
    ids=short,
)
def test_what_cannot_be_encoded_is_named(codec: Codec, value: Any, problem: str) -> None:
    with pytest.raises(SerializationError, match=f"^{problem}"):
        codec.encode([value])


@both
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_limited_alike_when_decoding_and_encoding(codec: Codec, opening: str, closing: str) -> None:
    deepest = opening * MAX_DEPTH + "0" + closing * MAX_DEPTH
    value = codec.decode(deepest)
    assert codec.encode(value) == deepest
    with pytest.raises(ProtocolError, match="nested deeper than 128"):
        codec.decode(opening + deepest + closing)
    with pytest.raises(SerializationError, match="nested deeper than 128"):
        codec.encode([value])


@both
def test_the_limit_does_not_depend_on_how_deep_the_caller_is(codec: Codec) -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH

    def deeper(levels: int) -> str:
        return deeper(levels - 1) if levels else codec.encode(codec.decode(text))

    assert deeper(sys.getrecursionlimit() - 500) == text


@both
def test_what_is_too_deep_is_refused_however_deep_the_caller_is(codec: Codec) -> None:
    def deeper(levels: int, text: str) -> None:
        if levels:
            deeper(levels - 1, text)
            return
        for refuse in (codec.decode, codec.decode_message):
            with pytest.raises(ProtocolError, match="nested deeper than 128"):
                refuse(text)

    left = sys.getrecursionlimit() - len(inspect.stack(0))
    for text in ("[" * 200, "[" * 200 + "]" * 200):
        deeper(left - 100, text)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000, '[{"a":' * 100_000])
@both
def test_absurd_nesting_is_refused(codec: Codec, text: str) -> None:
    for refuse in (codec.decode, codec.decode_message):
        with pytest.raises(ProtocolError, match="nested deeper"):
            refuse(text)


@pytest.mark.parametrize("inside", ["[{" * 200, r"\"[" * 200, r"\\", "]" * 200])
@both
def test_brackets_inside_strings_are_not_nesting(codec: Codec, inside: str) -> None:
    text = f'["{inside}",{"[" * (MAX_DEPTH - 1)}{"]" * (MAX_DEPTH - 1)}]'
    assert codec.decode(text)[0] == json.loads(f'"{inside}"')
    with pytest.raises(ProtocolError, match="nested deeper"):
        codec.decode(f"[{text}]")


@pytest.mark.parametrize("payload", ["[],", '{"a":1,"b":["[[["]},', "[[[[[[0]]]]]],", r'"\"[",'])
def test_msgspec_measures_no_text_that_is_shallow(payload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("msgspec", reason="msgspec, an extra, is not installed")
    codec = MsgspecCodec()
    monkeypatch.setattr("slipstream_trio.protocol.codec.check_depth", lambda _: pytest.fail("measured"))
    text = f"[{payload * 1000}0]"
    assert codec.decode(text) == json.loads(text)
    assert codec.decode_message(f'[null,null,"t","e",{text}]').payload == json.loads(text)


@pytest.mark.parametrize("inside", ["[],", "[" * 127 + "]" * 127 + ",", '"[","\\"",', r'"\\",{"[":"]"},'])
@both
def test_the_depth_of_a_long_text_is_that_of_its_deepest_part(codec: Codec, inside: str) -> None:
    long, deepest = inside * 500, "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert len(codec.decode(f"[{long}{deepest},{long}0]")) == 2 * 500 * len(json.loads(f"[{inside}0]")[:-1]) + 2
    with pytest.raises(ProtocolError, match=f"^.*nested deeper than {MAX_DEPTH}$"):
        codec.decode(f"[{long}[{deepest}],{long}0]")


@pytest.mark.parametrize("tail", [r"\"" * 100_000, "x" * 2_000_000, "x\\"])
def test_the_check_of_nesting_takes_linear_time_and_little_memory(tail: str) -> None:
    text = "[" * (MAX_DEPTH + 1) + '"' + tail
    tracemalloc.start()
    try:
        started = time.perf_counter()
        with pytest.raises(ProtocolError):
            check_depth(text)
        elapsed = time.perf_counter() - started
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert elapsed < 2  # backtracking: minutes
    assert peak < 10_000_000  # backtracking: 120 bytes a character


def test_msgspec_is_the_default_where_it_is_installed() -> None:
    pytest.importorskip("msgspec", reason="msgspec, an extra, is not installed")
    assert type(default_codec()) is MsgspecCodec


def test_without_msgspec_the_standard_library_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    assert type(default_codec.__wrapped__()) is StdlibCodec  # what it is called for but once in a process
