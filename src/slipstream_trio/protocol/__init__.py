"""The pure core: messages, serializers, what a connection does with every input. No I/O, no clock, no randomness."""

from ..errors import EndedBy
from .backoff import RECONNECT, REJOIN, Backoff, Disconnect, reconnect_delay, rejoin_delay, worth_retrying
from .codec import MAX_DEPTH, Codec, MsgspecCodec, StdlibCodec, default_codec
from .commands import (
    CloseConnection,
    Command,
    FrameReceived,
    Input,
    JoinTopic,
    LeaveTopic,
    PushMessage,
    SendHeartbeat,
    TimerTicked,
    TransportClosed,
    TransportFailed,
    TransportOpened,
)
from .events import (
    CloseTransport,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    Effect,
    Event,
    FrameRejected,
    HeartbeatAcknowledged,
    MessageDropped,
    MessageReceived,
    ReplyReceived,
    SendFrame,
    Step,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinOverdue,
    TopicJoinSucceeded,
    TopicLeft,
    Transition,
)
from .joining import JoinPacing
from .message import RESERVED_EVENTS, Frame, Message
from .options import Options
from .presence import Presence, PresenceChange, Presences, sync_diff, sync_state
from .serializer import Serializer, V1Serializer, V2Serializer, serializer_for
from .state import STATE_FIELDS, State, Status, next_deadline
from .transitions import handle, is_plain

__all__ = [
    "MAX_DEPTH", "RECONNECT", "REJOIN", "RESERVED_EVENTS", "STATE_FIELDS", "Backoff", "CloseConnection",
    "CloseTransport", "Codec", "Command", "ConnectionClosed", "ConnectionFailed", "ConnectionOpened", "Disconnect",
    "Effect", "EndedBy", "Event", "Frame", "FrameReceived", "FrameRejected", "HeartbeatAcknowledged", "Input",
    "JoinPacing", "JoinTopic", "LeaveTopic", "Message", "MessageDropped", "MessageReceived", "MsgspecCodec",
    "Options", "Presence", "PresenceChange", "Presences", "PushMessage", "ReplyReceived", "SendFrame",
    "SendHeartbeat", "Serializer", "State", "Status", "StdlibCodec", "Step", "TimerTicked", "TopicJoinClosed",
    "TopicJoinFailed", "TopicJoinOverdue", "TopicJoinSucceeded", "TopicLeft", "Transition", "TransportClosed",
    "TransportFailed", "TransportOpened", "V1Serializer", "V2Serializer", "default_codec", "handle", "is_plain",
    "next_deadline", "reconnect_delay", "rejoin_delay", "serializer_for", "sync_diff", "sync_state",
    "worth_retrying",
]  # fmt: skip
