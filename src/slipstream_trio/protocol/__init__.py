"""The pure core: messages, serializers, what a connection does with every input. No I/O, no clock, no randomness."""

from ..errors import EndedBy
from . import commands, events
from .backoff import RECONNECT, REJOIN, Backoff, Disconnect, reconnect_delay, rejoin_delay, worth_retrying
from .codec import MAX_DEPTH, Codec, MsgspecCodec, StdlibCodec, default_codec
from .commands import *  # noqa: F403 - all that it exports is public, and named there
from .events import *  # noqa: F403 - as above
from .joining import JoinPacing
from .message import RESERVED_EVENTS, Frame, Message
from .presence import Presence, PresenceChange, Presences, sync_diff, sync_state
from .serializer import Serializer, V1Serializer, V2Serializer, serializer_for
from .state import STATE_FIELDS, Options, State, Status, next_deadline
from .transitions import handle, is_plain

__all__ = [
    "MAX_DEPTH", "RECONNECT", "REJOIN", "RESERVED_EVENTS", "STATE_FIELDS", "Backoff", "Codec", "Disconnect", "EndedBy",
    "Frame", "JoinPacing", "Message", "MsgspecCodec", "Options", "Presence", "PresenceChange", "Presences",
    "Serializer", "State", "Status", "StdlibCodec", "V1Serializer", "V2Serializer", "default_codec", "handle",
    "is_plain", "next_deadline", "reconnect_delay", "rejoin_delay", "serializer_for", "sync_diff", "sync_state",
    "worth_retrying",
]  # fmt: skip
__all__ += commands.__all__
__all__ += events.__all__
