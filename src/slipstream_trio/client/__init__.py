"""The client: `connect`, and what it gives."""

from .arguments import DEFAULT, Default
from .buffer import Gap, Overflow, Stream, Subscription
from .callbacks import NO_REPLY, Caller, Client, NoReply, Reply, run_client
from .channel import Channel, ChannelStatus
from .configuration import Configuration, ConnectOptions
from .connect import connect
from .presence import ChannelPresence
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
