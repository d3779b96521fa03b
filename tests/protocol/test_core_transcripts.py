"""What real servers sent goes through the core without an error, and becomes the events that it should."""

from collections import Counter

import pytest
from tests.protocol import mirror, wire
from tests.protocol.mirror import Mirror, Play
from tests.protocol.recordings import NAMES, Record, read

from slipstream_trio.protocol import (
    CloseConnection,
    ConnectionClosed,
    FrameReceived,
    FrameRejected,
    Input,
    JoinTopic,
    LeaveTopic,
    Message,
    Serializer,
    StdlibCodec,
    V1Serializer,
    V2Serializer,
    default_codec,
    serializer_for,
)

RAW = "phoenix-1.8.12-bandit/server_sends_malformed_frames"
GARBAGE = "phoenix-1.8.12-bandit/malformed_text"

MALFORMED = {
    RAW: 20,  # an application that sends raw frames
    GARBAGE: 2,  # replies to frames whose topic was 5 and null, with that topic
}
"""How many frames of a recording are rejected; none of any other."""

UNJOINED = {mirror.NOT_JOINED: 2}
NOT_MIRRORED: dict[str, dict[str, int]] = {
    "basic_join_echo_leave": UNJOINED,
    "crash_then_rejoin": UNJOINED,
    "join_refused": UNJOINED,
    "stale_join_ref": {mirror.OTHER_JOIN_REF: 6},
    "binary_join": {mirror.BINARY_JOIN: 1, mirror.EARLIER: 1, mirror.BINARY_LEAVE: 1},
    "duplicate_join": {mirror.OTHER_JOIN_REF: 1},
    "heartbeat": {mirror.HEARTBEAT: 2, mirror.NO_REF: 1, mirror.NOT_JOINED: 1, mirror.NO_JOIN_REF: 1},
    "leave_twice_pipelined": {mirror.LEFT_TWICE: 1},
    "malformed_binary": {mirror.GARBAGE: 5},
    "malformed_text": {mirror.GARBAGE: 13},
    "malformed_text_with_channels": {mirror.GARBAGE: 1},
    "phx_events_sent_by_client": {mirror.RESERVED: 3},
    "push_to_unjoined_topic": {mirror.NOT_JOINED: 5, mirror.NO_REF: 1},
    "v1_map_frames": {
        mirror.OTHER_JOIN_REF: 2,  # none at all
        mirror.NO_JOIN_REF: 2,
        mirror.NOT_JOINED: 2,
        mirror.GARBAGE: 1,
    },
}
"""The frames that a recording's client sent and ours would not, and why; all frames of any other are mirrored."""


class Expectation:
    """What each frame of a recording means, told by its frames alone."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, str | None], type[Input]] = {}
        self.joins: dict[str, str | None] = {}
        self.leaving: set[str] = set()

    def sent(self, command: Input, message: Message) -> str | None:
        self.kinds[message.topic, message.ref] = type(command)
        replaced = isinstance(command, JoinTopic) and message.topic in self.joins
        if isinstance(command, JoinTopic):
            self.joins[message.topic] = message.join_ref
        if isinstance(command, LeaveTopic):
            self.leaving.add(message.topic)
        return "TopicJoinClosed" if replaced else None

    def received(self, message: Message) -> str | None:
        if message.event == "phx_reply" and message.ref is not None:
            return self.reply(message)
        if message.event in ("phx_close", "phx_error") and message.ref is not None:
            return self.end(message)
        if message.join_ref in (None, self.joins.get(message.topic)) and message.topic in self.joins:
            return "MessageReceived"
        return "MessageDropped"

    def reply(self, message: Message) -> str | None:
        kind = self.kinds.get((message.topic, message.ref))
        if kind is JoinTopic and message.payload["status"] != "ok":
            del self.joins[message.topic]
            return "TopicJoinFailed"
        names = {"JoinTopic": "TopicJoinSucceeded", "SendHeartbeat": "HeartbeatAcknowledged", "LeaveTopic": None}
        return names.get(kind.__name__ if kind else "", "ReplyReceived")

    def end(self, message: Message) -> str:
        if self.joins.get(message.topic) != message.ref:
            return "MessageDropped"
        del self.joins[message.topic]
        return "TopicLeft" if message.topic in self.leaving else "TopicJoinClosed"


@pytest.fixture(scope="module")
def plays() -> dict[str, Play]:
    return {}


def play(name: str, plays: dict[str, Play]) -> Play:
    if name not in plays:
        plays[name] = Play(name)
    return plays[name]


def expected_events(connection: Mirror) -> list[str | None]:
    expectation = Expectation()
    events: list[str | None] = []
    for given, transition in zip(connection.log, connection.transitions, strict=True):
        if isinstance(given, FrameReceived):
            message = transition.message
            events.append(expectation.received(message) if isinstance(message, Message) else "FrameRejected")
        elif transition.return_ and not isinstance(given, CloseConnection):
            (effect,) = transition.return_
            events.append(expectation.sent(given, wire.parse(getattr(effect, "frame", ""))))
    return [event for event in events if event]


def test_all_recordings_are_there() -> None:
    servers = Counter(name.split("/")[0] for name in NAMES)
    assert servers == {
        "phoenix-1.7.24-bandit": 11,
        "phoenix-1.8.12-bandit": 56,
        "phoenix-1.8.12-cowboy": 11,
    }
    assert len(NAMES) == 78


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_digested(name: str, plays: dict[str, Play]) -> None:
    played = play(name, plays)
    assert played.not_mirrored == NOT_MIRRORED.get(name.split("/")[1], {})
    assert played.events["FrameRejected"] == MALFORMED.get(name, 0)
    assert played.mirrors
    for connection in played.mirrors:
        assert connection.core.state.status == "closed"
        ends = [type(event).__name__ for event in connection.events]
        assert ends[0] == "ConnectionFailed" or (ends[0], ends[-1]) == ("ConnectionOpened", "ConnectionClosed")
        assert ends[1:-1] == expected_events(connection)


@pytest.mark.parametrize("name", NAMES)
def test_the_end_of_a_recorded_connection_has_the_reason_that_it_had(name: str, plays: dict[str, Play]) -> None:
    reasons = {"client": "closed_by_client", "server": "closed_by_server", "tcp": "lost"}
    recorded = Counter(
        (reasons[record.data["by"]], record.data["code"]) for record in read(name) if record.dir == "close"
    )
    ends = [event for connection in play(name, plays).mirrors for event in connection.events]
    assert recorded == Counter((end.reason, end.code) for end in ends if isinstance(end, ConnectionClosed))


def test_all_recordings_together(plays: dict[str, Play]) -> None:
    every = [play(name, plays) for name in NAMES]
    assert f"scenarios digested: {len(every)} of {len(NAMES)}" == "scenarios digested: 78 of 78"
    assert sum(played.mirrored for played in every) == 623
    assert sum((played.not_mirrored for played in every), Counter[str]()).total() == 81
    assert sum((played.events for played in every), Counter[str]()) == {
        "ConnectionOpened": 144,
        "ConnectionFailed": 22,
        "ConnectionClosed": 144,
        "TopicJoinSucceeded": 231,
        "TopicJoinFailed": 13,
        "TopicJoinClosed": 14,
        "TopicLeft": 9,
        "ReplyReceived": 323,
        "MessageReceived": 1077,
        "MessageDropped": 6,
        "FrameRejected": 22,
        "HeartbeatAcknowledged": 12,
    }


def test_the_frames_that_are_rejected(plays: dict[str, Play]) -> None:
    transitions = [
        transition
        for name in MALFORMED
        for connection in play(name, plays).mirrors
        for transition in connection.transitions
        if any(isinstance(event, FrameRejected) for event in transition.built_events)
    ]
    assert [transition.message.frame for transition in transitions] == [
        *("not json", "", "{}", "[]", "null", "[1,2]", '[null,null,"echo:raw","ev"]', "[null,null,5,6,7]"),
        *('[null,null,"echo:raw",null,{}]', '["1","2","echo:raw","phx_reply",{}]'),
        *('["1","2","echo:raw","phx_reply",null]', '["1",null,"echo:raw","ev",{"n":NaN}]'),
        *('[1,null,"echo:raw","ev",{"int_join_ref":true}]', r'["1",null,"echo:raw","ev",{"s":"\ud800"}]'),
        *(b"", b"\x00", b"\x01", b"\x02\xff\xff", b"\x07abc", b"\x00\x01\x08\x031echo:raw\xff\xfe\xfdx"),
        '[null,"1",5,"phx_reply",{"response":{"reason":"unmatched topic"},"status":"error"}]',
        '[null,"1",null,"phx_reply",{"response":{"reason":"unmatched topic"},"status":"error"}]',
    ]


def frames(direction: str) -> list[tuple[Record, Serializer]]:
    found = []
    for name in NAMES:
        serializers: dict[str, Serializer] = {}
        for record in read(name):
            if record.dir == "open" and record.data.get("status") == 101:
                serializers[record.connection] = serializer_for(record.vsn)
            if record.dir == direction:
                found.append((record, serializers[record.connection]))
    return found


def test_every_message_that_a_client_sent_is_encoded_as_it_was_sent() -> None:
    same = other = 0
    for record, serializer in frames("send"):
        try:
            message = wire.parse(record.frame)
        except (ValueError, TypeError, KeyError, AssertionError):
            other += 1
            continue
        if isinstance(record.frame, str) and record.frame.startswith("{") != (serializer.name == "v1"):
            other += 1
        elif isinstance(serializer, V1Serializer):
            assert wire.parse(serializer.encode(message)) == message
            same += 1
        else:
            assert serializer.encode(message) == record.frame
            same += 1
    assert (same, other) == (687, 17)


def test_every_frame_that_a_server_sent_is_decoded_alike_by_both_codecs() -> None:
    decoded = Counter[str]()
    for record, serializer in frames("recv"):
        if not isinstance(serializer, V2Serializer) or isinstance(record.frame, bytes):
            continue
        results = []
        for codec in (StdlibCodec(), default_codec()):
            try:
                results.append(repr(V2Serializer(codec).decode(record.frame)))
            except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
                results.append(type(error).__name__)
        assert results[0] == results[1]
        decoded[results[0] if results[0] == "ProtocolError" else "message"] += 1
    assert decoded["ProtocolError"] == 14  # and 6 binary ones, and 2 replies without a status
