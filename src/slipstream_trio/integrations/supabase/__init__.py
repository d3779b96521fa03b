"""Supabase Realtime: broadcasts, presence, and changes in Postgres, with access tokens that are renewed in time.

Made from the public sources of its server (supabase/realtime) and its clients (supabase/supabase-js,
packages/core/realtime-js; supabase/realtime-py); each module names its own.
"""

from .realtime import Realtime, RealtimeChannel, connect
from .serializer import SupabaseSerializer
from .values import (
    BadMessage,
    Broadcast,
    BroadcastReceived,
    PostgresChange,
    PostgresChanged,
    Presence,
    PresenceSynced,
    RealtimeEvent,
    SystemMessage,
)  # fmt: skip

__all__ = [
    "BadMessage", "Broadcast", "BroadcastReceived", "PostgresChange", "PostgresChanged", "Presence", "PresenceSynced",
    "Realtime", "RealtimeChannel", "RealtimeEvent", "SupabaseSerializer", "SystemMessage", "connect",
]  # fmt: skip
