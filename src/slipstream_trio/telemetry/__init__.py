"""Telemetry: everything that happens on a connection, as events that handlers can be attached to.

The functions are those of the process's own bus, which every connection uses unless `connect` is given another one.
"""

from typing import Final

from .bus import Handler, Telemetry, attach, attach_many, default_telemetry, detach, list_handlers, listen
from .records import (
    BufferOverflowed,
    ClientCallbackStart,
    ClientCallbackStop,
    ClientConnectStart,
    ClientConnectStop,
    ClientGaveUp,
    ClientJoinStart,
    ClientJoinStop,
    ClientLeaveStart,
    ClientLeaveStop,
    ClientPushStart,
    ClientPushStop,
    ClientSendStart,
    ClientSendStop,
    ConnectStart,
    ConnectStop,
    EventName,
    GapOpened,
    HandlerFailed,
    HandleStart,
    HandleStop,
    LoopStalled,
    MessageDiscarded,
    Origin,
    Outcome,
    ReconnectScheduled,
    Record,
    RejoinScheduled,
    ReplyOrphaned,
    SpanException,
    SpanStart,
)
from .streams import RecordStream

# Not imported: the import of the module `stream` gives its name to the module, whatever had it before.
stream: Final = default_telemetry.stream

__all__ = [
    "BufferOverflowed", "ClientCallbackStart", "ClientCallbackStop", "ClientConnectStart", "ClientConnectStop",
    "ClientGaveUp", "ClientJoinStart", "ClientJoinStop", "ClientLeaveStart", "ClientLeaveStop", "ClientPushStart",
    "ClientPushStop", "ClientSendStart", "ClientSendStop", "ConnectStart", "ConnectStop", "EventName", "GapOpened",
    "HandleStart", "HandleStop", "Handler", "HandlerFailed", "LoopStalled", "MessageDiscarded", "Origin", "Outcome",
    "ReconnectScheduled", "Record", "RecordStream", "RejoinScheduled", "ReplyOrphaned", "SpanException",
    "SpanStart", "Telemetry", "attach", "attach_many", "default_telemetry", "detach", "list_handlers", "listen",
    "stream",
]  # fmt: skip
