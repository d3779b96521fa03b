"""Supabase Realtime, made from the public sources of its server and clients, which each module names."""

from . import values
from .realtime import Realtime, RealtimeChannel, connect
from .serializer import SupabaseSerializer
from .values import *  # noqa: F403 - all that it exports is public, and named there

__all__ = ["Realtime", "RealtimeChannel", "SupabaseSerializer", "connect"]
__all__ += values.__all__
