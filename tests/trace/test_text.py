import json
from types import MappingProxyType

import pytest
from hypothesis import given, strategies as st

from slipstream_trio.testing.strategies import opening_state
from slipstream_trio.trace.text import Secrets, brief, duration, named_secrets_in, printable


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0.00 µs"),
        (1_234, "1.23 µs"),
        (12_345, "12.3 µs"),
        (123_456, "123 µs"),
        (999_499, "999 µs"),
        (999_500, "1.00 ms"),
        (99_949_999, "99.9 ms"),
        (99_950_000, "100 ms"),
        (2_310_000_000, "2.31 s"),
        (3_600_000_000_000, "3600 s"),
    ],
)
def test_durations_have_three_digits(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


def test_a_states_mapping_in_brief_is_an_object() -> None:
    assert brief(opening_state().joins) == "{}"
    assert brief({"joins": MappingProxyType({"room": "1"})}) == '{"joins":{"room":"1"}}'


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}'),
        (b"\x00" * 4096, "4,096 bytes"),
        ("\x1b[2J", '"\\u001b[2J"'),
        ("\u202e", '"\\u202e"'),
        (object, f'"{object!r}"'),
    ],
)
def test_payloads_in_brief(payload: object, text: str) -> None:
    assert brief(payload) == text


def test_long_payloads_are_cut_off_and_not_encoded_further() -> None:
    text = brief([list(range(1000))] * 100_000, limit=20)
    assert text == "[[0,1,2,3,4,5,6,7,8…"


@given(st.text(min_size=4), st.text(), st.text())
def test_a_secret_is_masked_in_every_form(secret: str, before: str, after: str) -> None:
    secrets = Secrets.of([secret])
    for encode in (str, repr, json.dumps):
        hidden = secrets.hide(encode(before + secret + after))
        assert encode(secret).strip("\"'") not in hidden.replace("[redacted]", "\x00")


def test_a_secret_that_would_be_cut_in_two_is_masked_first() -> None:
    secrets = Secrets.of(["the secret"])
    assert brief("x" * 12 + "the secret", secrets, limit=24) == '"xxxxxxxxxxxx[redacted]"'
    assert brief(["x" * 12 + "the secret", 1], secrets, limit=26) == '["xxxxxxxxxxxx[redacted]"…'


def test_secrets_are_masked_longest_first_and_not_in_the_repr() -> None:
    secrets = Secrets.of(["hunter", "hunter22", "abc"])
    assert secrets.hide("hunter22 hunter abc") == "[redacted] [redacted] abc"
    assert "hunter" not in repr(secrets)


def test_a_secret_may_be_any_string() -> None:
    assert Secrets.of(["\udc80\ud800abc"]).hide("a \udc80\ud800abc") == "a [redacted]"


def test_strings_in_json() -> None:
    assert list(named_secrets_in({"a": ["b", 1, {"c": "d"}], "e": None}, secret=True)) == ["b", "d"]


def test_printable_escapes_what_moves_the_cursor() -> None:
    assert printable("a\x1b[1m\udc80ü") == "a\\x1b[1m\\udc80ü"
