"""The client: `connect`, and what it gives; a `Client` is in `callbacks`."""

from .buffer import Gap, Overflow
from .channel import Channel, ChannelStatus
from .configuration import DEFAULT, Configuration, ConnectOptions, Default
from .connect import connect
from .presence import ChannelPresence
from .socket import Socket
from .status import Status, StatusChanges
from .stream import Stream, Subscription

__all__ = [
    "DEFAULT",
    "Channel",
    "ChannelPresence",
    "ChannelStatus",
    "Configuration",
    "ConnectOptions",
    "Default",
    "Gap",
    "Overflow",
    "Socket",
    "Status",
    "StatusChanges",
    "Stream",
    "Subscription",
    "connect",
]
