"""What the strategies for users draw is what they say, of every kind, and shrinks to something plain."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings, strategies as st
from tests.drawing import examples
from tests.protocol.json_texts import nearly_json_texts, unsendable_payloads, valid_json_texts

from slipstream_trio.errors import ProtocolError, SerializationError
from slipstream_trio.protocol import (
    RESERVED_EVENTS,
    Codec,
    Frame,
    FrameReceived,
    FrameRejected,
    Input,
    JoinTopic,
    Message,
    Options,
    State,
    StdlibCodec,
    TransportOpened,
    V2Serializer,
    default_codec,
    handle,
    serializer_for,
)
from slipstream_trio.testing import strategies
from slipstream_trio.testing.server.wire import Wire
from slipstream_trio.testing.strategies import (
    History,
    events,
    good_frames,
    histories,
    inputs,
    messages,
    odd_frames,
    opening_state,
    payloads,
    refs,
    states,
    statuses,
    topics,
)
from slipstream_trio.testing.strategies.frames import TROUBLES_V1, TROUBLES_V2

pytestmark = pytest.mark.once

CODECS: list[Codec] = [StdlibCodec()]
if default_codec().name != StdlibCodec.name:
    CODECS.append(default_codec())
VSNS = ["2.0.0", "1.0.0"]
MESSAGES = {vsn: good_frames(vsn) | odd_frames(vsn) for vsn in VSNS}
QUICK = settings(
    max_examples=300,
    database=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def simplest(strategy: st.SearchStrategy[Any], condition: Callable[[Any], bool]) -> Any:
    return find(strategy, condition, settings=QUICK)


@examples(25)
@given(topics(), events(), refs(), statuses())
def test_names_are_text_that_fits_a_binary_frame(topic: str, event: str, ref: str, status: str) -> None:
    for name in (topic, event, ref, status):
        assert len(name.encode()) <= 255
    assert event not in RESERVED_EVENTS
    assert int(ref) > 0


@examples(25)
@given(messages(payload=payloads()))
def test_every_message_can_be_sent_and_is_read_by_a_server(message: Message) -> None:
    wire = Wire("2.0.0")
    for codec in CODECS:
        read = wire.decode(V2Serializer(codec).encode(message))
        assert read._replace(join_ref=read.join_ref or None, ref=read.ref or None) == message


@examples(30)
@given(unsendable_payloads())
def test_no_unsendable_payload_can_be_sent(payload: Any) -> None:
    for codec in CODECS:
        with pytest.raises(SerializationError):
            V2Serializer(codec).encode(Message("1", "2", "room", "ev", payload))


@examples(25)
@given(valid_json_texts())
def test_valid_texts_are_json(text: str) -> None:
    value = json.loads(text)
    for codec in CODECS:
        assert codec.decode(text) == value


def test_of_texts_that_are_nearly_json_some_are_and_some_are_not() -> None:
    codec = StdlibCodec()

    def is_json(text: str) -> bool:
        try:
            codec.decode(text)
        except ProtocolError:
            return False
        return True

    assert is_json(simplest(nearly_json_texts(), is_json))
    assert not is_json(simplest(nearly_json_texts(), lambda text: not is_json(text)))


@pytest.mark.parametrize("vsn", VSNS)
@examples(25)
@given(st.data())
def test_good_and_odd_frames_are_messages(vsn: str, data: st.DataObject) -> None:
    frame = data.draw(MESSAGES[vsn])
    for codec in CODECS:
        assert type(serializer_for(vsn, codec).decode(frame)) is Message


@pytest.mark.parametrize(
    ("vsn", "trouble"),
    [*(("2.0.0", trouble) for trouble in TROUBLES_V2), *(("1.0.0", trouble) for trouble in TROUBLES_V1)],
)
@examples(10)
@given(st.data())
def test_every_kind_of_bad_frame_costs_that_frame(vsn: str, trouble: str, data: st.DataObject) -> None:
    frame = data.draw((TROUBLES_V1 if vsn == "1.0.0" else TROUBLES_V2)[trouble])
    state = OPEN[vsn]
    for codec in CODECS:
        transition = handle(state, FrameReceived(0.0, frame), serializer_for(vsn, codec))
        assert transition.state is state
        (event,) = transition.built_events
        assert isinstance(event, FrameRejected)


@pytest.mark.parametrize("vsn", VSNS)
def test_replies_without_a_status_are_among_the_odd_frames(vsn: str) -> None:
    state, serializer = OPEN[vsn], serializer_for(vsn)

    def is_rejected(frame: Frame) -> bool:
        transition = handle(state, FrameReceived(0.0, frame), serializer)
        return bool(transition.built_events) and isinstance(transition.built_events[0], FrameRejected)

    frame = simplest(odd_frames(vsn), is_rejected)
    assert serializer.decode(frame).event == "phx_reply"


# States and inputs


def opened(vsn: str) -> State:
    options = Options(url="ws://s/socket/websocket", vsn=vsn, serializer=f"v{vsn[0]}")
    return handle(opening_state(options), TransportOpened(0.0)).state


OPEN = {vsn: opened(vsn) for vsn in VSNS}


@examples(20)
@given(histories())
def test_every_history_can_be_handled_again(history: History) -> None:
    state = history.start
    for given_input, transition in zip(history.inputs, history.transitions, strict=True):
        assert handle(state, given_input) == transition
        state = transition.state
    assert state == history.state
    times = [given_input.now for given_input in history.inputs if hasattr(given_input, "now")]
    assert times == sorted(times)
    assert history.now == (times[-1] if times else 0.0)


@examples(20)
@given(st.data())
def test_every_input_that_fits_a_state_is_handled(data: st.DataObject) -> None:
    state = data.draw(states(max_inputs=8))
    given_input: Input = data.draw(inputs(state, 100.0))
    assert handle(state, given_input).state.generation == state.generation


@pytest.mark.parametrize("status", ["opening", "open", "closing", "closed"])
def test_states_of_every_status_are_drawn_and_shrink(status: str) -> None:
    state = simplest(states(max_inputs=3), lambda drawn: drawn.status == status)
    assert (state.status, len(state.joins)) == (status, 0)


def test_histories_shrink_to_what_it_takes() -> None:
    def has_join(history: History) -> bool:
        return any(transition.state.joins for transition in history.transitions)

    history = simplest(histories(max_inputs=5), has_join)
    opened, joined = history.inputs
    assert isinstance(opened, TransportOpened)
    assert isinstance(joined, JoinTopic)
    assert (joined.payload, joined.now) == ({}, 0.0)


def test_a_history_goes_on_and_refuses_what_does_not_fit() -> None:
    history = History(opening_state())
    assert history.state is history.start
    given_input = TransportOpened(0.0)
    longer = history.then(given_input)
    assert longer.state.status == "open"
    assert history.inputs == ()
    with pytest.raises(ProtocolError):
        longer.then(given_input)


@pytest.mark.parametrize(
    "name",
    [name for name in strategies.__all__ if name not in ("History", "inputs", "opening_state")],
)
def test_every_strategy_passes_the_health_checks_but_for_a_busy_machine(name: str) -> None:
    strategy = getattr(strategies, name)()

    @settings(max_examples=10, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(strategy)
    def draw(_: Any) -> None:
        pass

    draw()
