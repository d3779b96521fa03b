"""Telemetry: everything that happens on a connection, as events that handlers can be attached to.

The functions are those of the process's own bus, which every connection uses unless `connect` is given another one.
"""

from . import records
from .bus import Handler, Telemetry, attach, attach_many, default_telemetry, detach, list_handlers, listen, stream
from .records import *  # noqa: F403 - all that it exports is public, and named there
from .streams import RecordStream

__all__ = [
    "Handler", "RecordStream", "Telemetry", "attach", "attach_many", "default_telemetry", "detach", "list_handlers",
    "listen", "stream",
]  # fmt: skip
__all__ += records.__all__
