"""The client: `connect`, and what it gives."""

from .buffer import Gap, Overflow
from .callbacks import Client, run_client
from .channel import DEFAULT, Channel, Default, Stream, Subscription
from .configuration import Configuration, ConnectOptions
from .connect import connect
from .membership import ChannelStatus
from .presence import ChannelPresence
from .replies import NO_REPLY, Caller, NoReply, Reply
from .socket import Socket
from .status import Status, StatusChanges

__all__ = [
    "DEFAULT",
    "NO_REPLY",
    "Caller",
    "Channel",
    "ChannelPresence",
    "ChannelStatus",
    "Client",
    "Configuration",
    "ConnectOptions",
    "Default",
    "Gap",
    "NoReply",
    "Overflow",
    "Reply",
    "Socket",
    "Status",
    "StatusChanges",
    "Stream",
    "Subscription",
    "connect",
    "run_client",
]
