"""Supabase Realtime, made from the public sources of its server and clients, which each module names."""

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
