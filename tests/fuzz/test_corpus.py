"""The fuzzers' targets, without a fuzzer: on the corpus, on bytes that Hypothesis draws, and on what was found."""

from pathlib import Path

import pytest
from fuzz.scripts import write_options, write_step
from fuzz.seed import frames, scripts
from fuzz.targets import TARGETS, fuzz_core, fuzz_serializers
from hypothesis import given, strategies as st
from tests.drawing import FACTOR, examples

from slipstream_trio.protocol import Message, V2Serializer
from slipstream_trio.testing.strategies import frames as any_frames

pytestmark = pytest.mark.once

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_no_trouble(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert len(inputs) > 30
    # What was found before is played every time, of the rest a part, unless Hypothesis draws more as well.
    stride = 1 if FACTOR > 1 else 5
    for path in [path for at, path in enumerate(inputs) if path.name.startswith("found-") or at % stride == 0]:
        try:
            TARGETS[target](path.read_bytes())
        except Exception as error:
            raise AssertionError(f"{path.relative_to(CORPUS)}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("target", TARGETS)
@examples(30)
@given(st.data())
def test_any_bytes_are_no_trouble(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(st.binary(max_size=200)))


@examples(30)
@given(any_frames() | any_frames("1.0.0"), st.booleans())
def test_any_frame_is_no_trouble(frame: str | bytes, v1: bool) -> None:
    content = frame if isinstance(frame, bytes) else frame.encode("utf-8", "surrogatepass")
    fuzz_serializers(bytes([v1 + 2 * isinstance(frame, bytes)]) + content)


def test_a_serializer_that_lets_an_error_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: V2Serializer, frame: str | bytes) -> Message:
        raise KeyError("topic")

    monkeypatch.setattr(V2Serializer, "decode", decode)
    with pytest.raises(KeyError):
        fuzz_serializers(b"\0[]")


def test_codecs_that_do_not_agree_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("msgspec", reason="msgspec, an extra, is not installed: there is nothing to agree with")
    answers = iter([Message(None, None, "a", "b", 1), Message(None, None, "a", "b", 1.0)])
    monkeypatch.setattr(V2Serializer, "decode", lambda self, frame: next(answers))
    with pytest.raises(AssertionError, match="do not agree"):
        fuzz_serializers(b"\0[]")


def test_a_script_that_ends_too_early_is_read_as_far_as_it_goes() -> None:
    whole = write_options("2.0.0") + write_step("join", "room", 0, 0) + write_step("text", '["1","1","room","x",{}]')
    for end in range(len(whole) + 1):
        fuzz_core(whole[:end])


def test_recordings_make_seeds_of_both_kinds() -> None:
    for seeds, target in ((frames(), fuzz_serializers), (scripts(), fuzz_core)):
        some = [seed for _, seed in zip(range(20), seeds, strict=False)]
        assert len(some) == 20
        for seed in some:
            target(seed)
